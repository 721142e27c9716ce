"""Draw terminal.svg: the live view of `make demo`'s search. python docs/images/terminal.py"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from tunekit.events import Event
from tunekit.ledger import Ledger, read_experiment
from tunekit.live import ViewState
from tunekit.screen import frame

COMMAND = "tunekit run --dataset digits --space digits --num-trials 20 --max-epochs 10 --metric val_loss --confirm 3"
NO_FONTS = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)  # they would be fetched from elsewhere


def moment(events: list[Event], state: ViewState) -> int:
    """Return how many events there were when trials that ran side by side had the longest curves."""
    longest, found = 0, len(events)
    for number, event in enumerate(events, start=1):
        state.hear([event])
        lengths = [len(trial.history) for trial in state.shown() if trial.state == "running"]
        if len(lengths) > 1 and sum(lengths) > longest and all(trial.role == "search" for trial in state.shown()):
            longest, found = sum(lengths), number
    return found


def main() -> None:
    """Run the command for real, and draw the view as its ledger had it then."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*COMMAND.split()[1:], "--name", "demo", "--folder", folder]
        subprocess.run([sys.executable, "-m", "tunekit", *arguments], check=True)
        experiment = Path(folder) / "demo"
        state = ViewState(read_experiment(experiment)["asked"])
        ledger = Ledger(experiment)
        events = list(ledger.events())
        ledger.close()
        state.hear(events[: moment(events, ViewState(read_experiment(experiment)["asked"]))])
        with open("/dev/null", "w") as nowhere:
            console = Console(record=True, width=100, height=24, force_terminal=True, file=nowhere)
            console.print(f"[bold]$[/] {COMMAND.replace(' --max', chr(10) + '      --max')}\n", highlight=False)
            console.print(frame(state, console))
        text = NO_FONTS.sub("", CONSOLE_SVG_FORMAT)
        picture = console.export_svg(title="tunekit", theme=MONOKAI, code_format=text, unique_id="terminal")
        Path(__file__).with_suffix(".svg").write_text(picture)


if __name__ == "__main__":
    main()
