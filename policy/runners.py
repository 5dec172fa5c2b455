"""Programs and subcommands that run other programs, so that a pattern for their words would cover anything."""

import re
from collections.abc import Sequence


def _split_names(text: str) -> frozenset[str]:
    return frozenset(text.split())


INTERPRETERS = _split_names(
    """
    python pythonw pypy ipython jupyter bpython ptpython hy node nodejs deno bun tsx ts-node esno zx jiti jsc qjs
    ruby irb jruby perl raku php hhvm lua luajit tclsh wish expect rscript r julia octave java jshell groovy
    kotlin scala clojure clj bb lein elixir iex erl escript racket guile sbcl clisp ecl chez scheme ghci runghc
    runhaskell stack ocaml swift dart crystal nim zig v gforth gnuplot osascript pwsh powershell cmd wscript
    cscript mshta rundll awk gawk mawk nawk sed gsed jq m4 bc dc sqlite psql mysql mariadb mongosh redis-cli
    duckdb
    """
)
SHELLS = _split_names(
    """
    sh bash dash zsh ksh mksh oksh yash tcsh csh fish ash hush rbash rksh rzsh nu xonsh elvish osh ysh busybox
    toybox eval exec source command builtin alias trap enable hash bind complete coproc env printenv
    """
)
"""Shells, and builtins that run their words or change what a name means."""
WRAPPERS = _split_names(
    """
    xargs parallel find fd fdfind nohup nice ionice chrt taskset numactl time timeout gtimeout watch watchexec
    entr nodemon script setsid stdbuf unbuffer strace ltrace dtruss perf valgrind rr gdb lldb flock tmux screen
    byobu zellij dtach abduco chroot unshare nsenter firejail bwrap systemd-run at batch crontab start-stop-daemon
    daemonize caffeinate open start xdg-open setarch linux linux32 linux64 prlimit cpulimit run-parts doit
    hyperfine dotenv direnv op chamber with-contenv tini dumb-init gosu setpriv runuser capsh faketime torsocks
    proxychains proxychains4 torify xvfb-run dbus-run-session dbus-launch ld.so qemu wine wine64 mono sudo doas su
    pkexec run0 rlwrap ccache distcc sccache arch choom cgexec logsave eatmydata fakeroot
    """
)
"""Programs that run the command behind their own options."""
ENVIRONMENTS = _split_names(
    """
    npx pnpx bunx uvx uv pipx poetry pipenv pdm hatch rye tox nox conda mamba micromamba pixi coverage invoke fab
    volta nvm fnm n asdf mise rtx rbenv pyenv nix nix-shell nix-build guix flatpak snap devbox
    """
)
"""Programs that fetch programs, or run one in an environment."""
REMOTES = _split_names(
    """
    ssh autossh sshpass mosh telnet rsh scp sftp rsync rclone docker podman nerdctl buildah ctr crictl lxc lxd
    incus kubectl oc helm docker-compose vagrant ansible ansible-playbook terraform tofu salt nc ncat netcat socat
    """
)
"""Programs for other machines and containers."""
EDITORS = _split_names(
    """
    vi vim view vimdiff nvim ex ed emacs emacsclient nano pico micro hx kak joe less more most man info lynx w3m
    """
)
"""Editors and pagers, which start programs by a command of theirs."""
ARCHIVERS = _split_names(
    """
    tar gtar bsdtar unzip zip 7z 7za 7zip 7zr cpio pax ar unrar unar patch git-apply cabextract shar unshar
    """
)
"""Archives and patches write names that no word shows."""
BUILDERS = _split_names(
    """
    gcc cc g++ c++ clang clang++ ld tcc ninja meson cmake ctest scons waf tup redo just task rake gulp grunt jake
    mage ant b2 buck buck2 bazel bazelisk pants please earthly dagger nx lerna turbo concurrently npm-run-all
    wireit
    """
)
"""Compilers and build programs whose options or files name programs."""
RUNNERS = INTERPRETERS | SHELLS | WRAPPERS | ENVIRONMENTS | REMOTES | EDITORS | ARCHIVERS | BUILDERS
"""Programs whose words may name programs, code or archives. The names have no version and no ending."""
SUBCOMMAND_PROGRAMS = _split_names(
    """
    git hg svn jj bzr fossil darcs sl gh glab hub tea git-lfs dvc make gmake bmake npm pnpm yarn bower pip
    easy_install twine flit maturin setuptools cargo rustup cross trunk wasm-pack go gopls mvn mvnw gradle gradlew
    sbt mill dotnet nuget msbuild composer artisan symfony drush wp bundle bundler gem rails rackup cap mix rebar
    rebar3 hex gleam cabal opam dune esy spago elm shards swiftc xcodebuild xcrun pod carthage fastlane flutter
    pub melos fvm zef cpan cpanm nimble luarocks raco roswell quicklisp vcpkg conan xmake premake pkg-config brew
    port apt apt-get aptitude dpkg yum dnf zypper pacman yay paru apk emerge xbps-install choco scoop winget pkg
    pkg_add snapcraft flatpak-builder systemctl service launchctl journalctl loginctl networkctl rc-service sv
    initctl supervisorctl pm2 forever aws az gcloud gsutil doctl heroku flyctl fly vercel netlify wrangler
    firebase supabase railway amplify sam serverless sls cdk cdktf pulumi terragrunt packer nomad consul vault
    boundary eksctl k9s kind minikube skaffold tilt argocd flux istioctl linkerd kustomize compose django-admin
    manage flask uvicorn gunicorn celery alembic dagster prefect airflow dbt mlflow kedro luigi streamlit scrapy
    ruff pre-commit lefthook husky lint-staged commitizen cz bumpversion semantic-release ng vue react-scripts
    next nuxt gatsby astro svelte-kit expo eas ionic cordova capacitor hexo vite webpack rollup parcel esbuild swc
    babel tsup rush moon changeset prisma drizzle-kit sequelize typeorm knex nest playwright cypress storybook
    wdio ember quasar electron tauri hardhat truffle forge cast anchor solana ip iptables nft firewall-cmd ufw
    nmcli wg tc brctl modprobe mount umount losetup cryptsetup zfs zpool btrfs openssl gpg security keychain pass
    age sops certbot step crontab at reg schtasks net netsh sc wmic bcdedit
    """
)
"""Programs whose first operand is a command of theirs, which a pattern must write out."""
VERSION_CONTROLS = _split_names("git hg svn jj bzr fossil darcs sl dvc git-lfs")
RUNNING_SUBCOMMANDS = _split_names(
    """
    exec x dlx run run-script runx shell sh ssh foreach bisect config filter-branch difftool mergetool instaweb
    hook generate tool script eval console repl cmd use with env plugin plugins extension alias apply am
    archimport p4 svn fast-import rebase submodule
    """
)
"""Subcommands that run a program or configure one, or that write names which no word shows."""
INSTALLING_SUBCOMMANDS = _split_names(
    """
    install isntall i in ins inst add a update up upgrade create init new get ci clean-install it install-test
    link ln rebuild explore edit set-script pkg publish restore sync require global download wheel fetch fix
    """
)
"""Subcommands that install a program and run parts of it; those of version control only change files."""
SCRIPT_PROGRAMS = frozenset({"npm", "pnpm", "yarn", "composer"})
"""Programs whose `run` starts a script of the project's own, which a change of the project's file would show."""
PROGRAM_ENDING = re.compile(r"\.(?:exe|com|cmd|bat|ps1|sh|py)$")
VERSION = re.compile(r"[-.\d]*\d$")


def _normalize_program(word: str) -> str:
    """Return the name of a program without its folder, its ending and its version, in small letters."""
    return PROGRAM_ENDING.sub("", re.split(r"[/\\]", word)[-1].casefold())


def runs_programs(words: Sequence[str]) -> bool:
    """Return whether the first word of a pattern, or the subcommand behind it, runs other programs."""
    program = _normalize_program(words[0])
    if not RUNNERS.isdisjoint(_name_versions(program)):
        return True
    if len(words) == 1 or not has_subcommands(program):
        return False
    subcommand = words[1].casefold()
    if subcommand in RUNNING_SUBCOMMANDS:
        return not (subcommand == "run" and program in SCRIPT_PROGRAMS)
    return subcommand in INSTALLING_SUBCOMMANDS and program not in VERSION_CONTROLS


def has_subcommands(word: str) -> bool:
    """Return whether the first operand of the program is a command of it."""
    return not SUBCOMMAND_PROGRAMS.isdisjoint(_name_versions(_normalize_program(word)))


def _name_versions(program: str) -> set[str]:
    """Return the name of the program with its version and without it."""
    return {program, VERSION.sub("", program)}
