"""The CRD that users made by hand before there was an operator, and a ticket of theirs, word for word."""

from typing import Any

import yaml

CRD: dict[str, Any] = yaml.safe_load(
    """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: flighttickets.flights.com
spec:
  scope: Namespaced
  group: flights.com
  names: {kind: FlightTicket, singular: flightticket, plural: flighttickets, shortNames: [ft]}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                from: {type: string}
                to: {type: string}
                number: {type: integer, minimum: 1, maximum: 10}
"""
)

TICKET: dict[str, Any] = yaml.safe_load(
    """
apiVersion: flights.com/v1
kind: FlightTicket
metadata: {name: my-flight-ticket}
spec: {from: Mumbai, to: London, number: 2}
"""
)
