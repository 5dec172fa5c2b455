"""The scratch workspace: ordinary files, and the things that a careless program trips over."""

import json
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

LONG_LINE = "a" * 2000 + "b"
"""A line that makes a backtracking expression slow; 2000 is enough to tell exponential time from linear."""
LOG_LINES = 2000
"""Lines of the log: about 100 kB, as an ordinary file of a project."""
SECRET = "secret-of-the-user"
"""The content of the file outside of the workspace."""

FILES = {
    "README.md": "# Title\n\nSome text with TODO and an error.\n",
    "a.txt": "a\nb\nc 1 2\n",
    "b.txt": "a\nc\nd 3 4\n",
    "data.csv": "a,1,20\nb,2,5\n",
    "data.json": json.dumps([{"name": "a", "id": 1}, {"name": "b", "id": 2, "text": "a" * 200}]) + "\n",
    "package.json": '{"name": "x", "version": "1.0.0", "scripts": {"test": "jest"}}\n',
    "Makefile": "test:\n\techo test\n",
    "src/main.py": "import os\n\n\ndef main() -> None:\n    print('hi')\n",
    "src/app.js": "import x from 'express'\n",
    "src/utils/helpers.py": "def help():\n    pass\n",
    "tests/test_main.py": "def test_main():\n    assert True\n",
    "docs/guide.md": "# Guide\n",
    "docs/api/index.md": "# API\n",
    "log.txt": "2026-01-01 ERROR one\n2026-01-02 WARN two\n",
    "big.log": "".join(f"2026-01-01 12:00:{n % 60:02} INFO request {n} of a client\n" for n in range(LOG_LINES)),
    "long.txt": f"{LONG_LINE}\n{LONG_LINE}\n",
    "cmd.txt": "xtouch pwned\ntouch pwned\nw out\n/etc/passwd\n../outside/secret\n",
    "my file.txt": "spaced\n",
    "empty": "",
    "0/ls": "#!/bin/sh\ntouch pwned\n",
    "[x].txt": "bracket\n",
    "-n": "a file named as an option\n",
    "--help": "a file named as a long option\n",
    "-f": "p\nw out\n",
    "--output=x": "",
    "@opts": "-o out\n",
    'a{system("touch pwned")}': "",
    "a.out": "x\n",
    ".env.example": "PORT=1\n",
    ".ignore": "data/\n",
    ".gitignore": "data/\n",
    ".github/workflows/ci.yml": "on: push\n",
    ".git/config": "[core]\n\tbare = false\n",
    ".git/HEAD": "ref: refs/heads/main\n",
}
EXECUTABLE_FILES = {"0/ls"}


class Scratch:
    """A workspace, the folder of a user around it, and a picture of both that shows any change."""

    def __init__(self, owner: int | None) -> None:
        """Create the folders; they belong to the user `owner`, or to the user who runs this."""
        self.root = Path(mkdtemp(prefix="gate-"))
        self.root.chmod(0o755)
        self.owner = owner
        self.programs = self.root / "programs"
        self.workspace = self.root / "user" / "workspace"
        self.home = self.root / "user" / "home"
        self.temporary = self.root / "user" / "tmp"
        self.temporary_name = os.path.relpath(self.temporary, self.workspace)
        self.outside = self.root / "user" / "outside"
        self.fifo = self.workspace / "fifos" / "pipe"
        self._write_files()

    def _write_files(self) -> None:
        for folder in (self.workspace, self.home, self.temporary, self.outside):
            folder.mkdir(parents=True)
        for name, content in FILES.items():
            file = self.workspace / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        for name in EXECUTABLE_FILES:
            (self.workspace / name).chmod(0o755)
        (self.outside / "secret").write_text(f"{SECRET}\n")
        (self.workspace / "link").symlink_to("../outside")
        (self.workspace / "flink").symlink_to("../outside/secret")
        self.fifo.parent.mkdir()
        os.mkfifo(self.fifo)
        if self.owner is not None:
            for path in [self.root / "user", *(self.root / "user").rglob("*")]:
                os.chown(path, self.owner, self.owner, follow_symlinks=False)
        self.picture = self.take_picture()

    def take_picture(self) -> dict[str, tuple[int, ...]]:
        """Return what any write would change of each file: no program can set the time of a change back."""
        picture: dict[str, tuple[int, ...]] = {}
        folders = [str(self.root / "user")]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    picture[entry.path] = (status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        return picture

    def find_changes(self) -> list[str]:
        """Return the paths that are not as they were, and lay the files out again if there are any."""
        picture = self.take_picture()
        changes = sorted(path for path in picture | self.picture if picture.get(path) != self.picture.get(path))
        if changes:
            shutil.rmtree(self.root / "user")
            self._write_files()
        return [os.path.relpath(path, self.workspace) for path in changes]

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.root, ignore_errors=True)
