"""The flights operator: books what FlightTickets ask for at an airline's HTTP API."""
