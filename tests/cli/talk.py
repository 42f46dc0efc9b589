"""Plays the user of a program on a terminal: talk.py COMMAND... < steps. A step is a line: "type TEXT" (keys; \\r, \\x03 and the
like are understood), "see REGEX" (waits until the screen's text since the last match has it), "kill NAME" (sends the signal), "end STATUS"
(waits for the exit). Prints what was seen and fails where a step does."""
import os, pty, re, select, signal, sys, termios, time

LIMIT = 60
steps = [line.rstrip("\n") for line in sys.stdin if line.strip() and not line.startswith("#")]
pid, fd = pty.fork()
if not pid:
    os.environ["TERM"] = "xterm"
    signal.signal(signal.SIGINT, signal.SIG_DFL) # a shell that runs the tests in the background has it ignored
    os.execvp(sys.argv[1], sys.argv[1:])
seen, mark = b"", 0


def fail(why):
    os.kill(pid, signal.SIGKILL)
    sys.exit(f"{why}\n--- seen:\n{seen.decode(errors='replace')}")


def more(until):
    """Reads what the terminal has; False at its end or after the time."""
    global seen
    if not select.select([fd], [], [], max(0, until - time.time()))[0]:
        return False
    try:
        got = os.read(fd, 65536)
    except OSError:
        got = b""
    seen += got
    return bool(got)


for step in steps:
    verb, _, text = step.partition(" ")
    until = time.time() + LIMIT
    if verb == "type":
        # Keys other than Control-C are for the line editor, which may still be on its way: a Control-D would be lost.
        while "\\x03" not in text and termios.tcgetattr(fd)[3] & termios.ICANON and time.time() < until:
            more(time.time() + 0.01)
        os.write(fd, text.encode().decode("unicode_escape").encode("latin-1"))
    elif verb == "see":
        while not (hit := re.search(text.encode(), seen[mark:], re.S)):
            if not more(until) and not re.search(text.encode(), seen[mark:], re.S):
                fail(f"not seen: {text}")
        mark += hit.end()
    elif verb == "kill":
        os.kill(pid, signal.Signals["SIG" + text])
    elif verb == "end":
        while more(until):
            pass
        if time.time() >= until:
            fail("still runs")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != int(text):
            sys.exit(f"exit status {status}, not {text}\n--- seen:\n{seen.decode(errors='replace')}")
    else:
        fail(f"unknown step: {step}")
print(seen.decode(errors="replace"))
