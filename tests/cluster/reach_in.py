"""Tries to use a cluster through Ray itself, without its token or with a wrong one; writes what happened."""

import sys


def main() -> None:
    """Connect to the address on the command line and run code there, if one is let."""
    import ray

    try:
        ray.init(sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
        print("accepted", ray.get(ray.remote(num_cpus=0)(lambda: "and ran code").remote(), timeout=30))
    except BaseException as error:  # Ray ends the process in some cases
        print("refused", type(error).__name__, " ".join(str(error).split())[:200])


if __name__ == "__main__":
    main()
