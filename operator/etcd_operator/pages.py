"""The URLs of the how-to pages that messages name. A user who has installed the operator has no checkout."""

from pilothouse import __version__

HOWTO = f"https://github.com/pilothouse/pilothouse/blob/v{__version__}/docs/howto/etcd"
"""The folder of the pages, at the tag of this release."""

RECOVERY = f"{HOWTO}/recover.md"
"""How to recover from what the operator does not repair."""

NODE_LOST = f"{RECOVERY}#a-node-does-not-come-back"
CORRUPT = f"{RECOVERY}#the-data-of-the-members-differs"
DATA_DAMAGED = f"{RECOVERY}#the-data-of-a-majority-is-damaged"
VOLUME_DELETED = f"{RECOVERY}#a-volume-is-deleted-while-its-pod-does-not-run"
VOTER_DOWN = f"{RECOVERY}#a-voter-that-you-have-added-does-not-run"
OTHER_CLUSTER = f"{RECOVERY}#a-member-belongs-to-another-cluster"
MAJORITY_LOST = f"{RECOVERY}#the-volumes-of-a-majority-are-lost"
NOT_RESUMED = f"{RECOVERY}#a-deleted-cluster-cannot-be-resumed"
UNMARKED = f"{RECOVERY}#a-restored-volume-has-no-annotations"
ALL_LOST = f"{RECOVERY}#all-volumes-are-lost"

ALARMS = f"{HOWTO}/storage.md#when-etcd-raises-an-alarm"
"""What to do about each alarm of etcd."""

MIGRATION = f"{HOWTO}/migrate.md"
"""How to move the data of a cluster of the coreos operator."""

AUTHORITIES = f"{HOWTO}/tls.md#change-the-certificate-authority"
"""How to change a certificate authority in two steps."""
