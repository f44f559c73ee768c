"""The operator's process: python3 -m greeter_operator. --help lists its commands."""

from greeter_operator.playbook import watch
from pilothouse import main

NAME = "greeter"

if __name__ == "__main__":
    raise SystemExit(main(NAME, [watch()]))
