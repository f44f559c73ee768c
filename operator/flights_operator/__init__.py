"""The flights operator: books FlightTickets at an airline's HTTP API."""
