"""The application: its commands, and what an error becomes."""

import errno
import sys

from cyclopts import App, CycloptsError

import stopgrad
from stopgrad.cli.bench import bench
from stopgrad.cli.check import check
from stopgrad.cli.embed import embed
from stopgrad.cli.evaluate import evaluate
from stopgrad.cli.export import export
from stopgrad.cli.pretrain import pretrain
from stopgrad.cli.preview import preview
from stopgrad.cli.recipes import recipes
from stopgrad.cli.report import compare, report
from stopgrad.cli.search import search
from stopgrad.cli.study import study
from stopgrad.errors import StopgradError, is_out_of_memory, more, topic_of, words_of
from stopgrad.removed import removed_words
from stopgrad.visible import visible

app = App(
    name="stopgrad",
    help="Self-supervised image representation learning by guided stop-gradient.",
    version=f"stopgrad {stopgrad.__version__}",
    help_format="plaintext",
    # It would exit with 130 and without a message.
    suppress_keyboard_interrupt=False,
)
app.command(pretrain)
app.command(recipes)
app.command(preview)
app.command(evaluate)
app.command(export)
app.command(embed)
app.command(search)
app.command(report)
app.command(compare)
app.command(check)
app.command(bench)
app.command(study)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed after it began, 2 wrong usage or config, 3 stopped on request."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        return _fail(_of_a_removed_flag(arguments) or f"{error}".strip(), 2)
    except StopgradError as error:
        return _fail(str(error), error.exit_code, topic_of(error))
    except KeyboardInterrupt:
        return _fail("by Ctrl-C before there was anything to save.", 3)
    except BrokenPipeError:
        # The reader of the output has exited, as in `stopgrad recipes | head`.
        sys.stderr.close()
        return 1
    except OSError as error:
        return _fail(words_of(error), 1, "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail(": ".join(filter(None, ("out of memory", *str(error).splitlines()[:1]))), 1, "out-of-memory")
    return 0


def _of_a_removed_flag(arguments: list[str]) -> str:
    """What became of the first flag that earlier versions had; empty where there is none."""
    names = (flag.partition("=")[0].removeprefix("--").replace("-", "_") for flag in arguments if flag[:2] == "--")
    return next((words for name in names if (words := removed_words(name))), "")


def _fail(message: str, code: int, topic: str = "") -> int:
    print(f"stopgrad: {'stopped' if code == 3 else 'error'}: {visible(message)}", file=sys.stderr)
    if topic:
        print(more(topic), file=sys.stderr)
    return code
