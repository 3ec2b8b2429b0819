"""perceiver under Ray Train: its JaxTrainer starts the processes and lets them meet; each calls the command's own code.

python launch/ray_train.py experiments/fashion.py --workers 2 --workdir /shared/runs/fashion -- --steps 5000

Needs `pip install 'ray[train]'`. What comes behind `--` are the experiment's own options. A worker that dies ends the
others; Ray starts all again, up to `--restarts` times, and they go on from the last checkpoint.
"""

import argparse


def worker(config: dict[str, list[str]]) -> None:
    """What each process runs."""
    from perceiver import cli

    cli.main(["train", *config["words"]])


def main() -> None:
    """Start the workers and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--workdir", required=True, help="a folder that all machines share")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one GPU")
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("options", nargs="*", help="the experiment's own options, behind --")
    given = parser.parse_args()

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxTrainer

    JaxTrainer(
        worker,
        train_loop_config={"words": [given.experiment, "--workdir", given.workdir, *given.options]},
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=True),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=given.restarts)),
    ).fit()


if __name__ == "__main__":
    main()
