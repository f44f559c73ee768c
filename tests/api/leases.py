"""The settings of Leases for operators that run as processes of their own."""

#: Short, because tests wait until a Lease expires. Long enough that a leader on a busy machine renews it in
#: time.
SHORT_LEASE = {"LEASE_DURATION": "10s", "RENEW_DEADLINE": "8s", "RETRY_PERIOD": "1s"}
