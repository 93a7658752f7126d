#!/bin/sh
# Installs hb as a service of this machine, or into another root; a second run changes nothing. `--help` tells how.
set -eu
umask 027

usage() {
    cat <<'END'
usage: install.sh [--prefix DIR] [--root DIR] [--from DIR] [--publisher FILE]
       install.sh --uninstall [--purge] [--prefix DIR] [--root DIR]

  --prefix DIR      where the program goes: an absolute path of its own (default: /opt/hb)
  --root DIR        install below DIR and leave this machine alone: no user, no owners, no systemctl
  --from DIR        the folder that holds the built `hb` (default: the build's release, else its debug folder);
                    plugins are taken from plugins/ in it or beside it
  --publisher FILE  the public key that plugins must be signed with (default: the one beside the plugins)
  --uninstall       remove what was installed; config, state and user stay
  --purge           with --uninstall: remove config, state, keys, evidence and user too

exit codes: 0 done, 64 wrong arguments, 66 something to install is missing, 77 not permitted, 78 wrong configuration
END
}

main() {
    prefix=/opt/hb root='' from='' publisher='' uninstall=no purge=no
    read_arguments "$@"
    # What belongs to hb besides its prefix, below the root.
    etc=$root/etc/hb state=$root/var/lib/hb units=$root/etc/systemd/system unit=hb-daemon.service
    share=$root$prefix/share/hb list=$root$prefix/share/hb/installed
    changed=0
    if [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
        fail 77 'only root can install a service' 'run it with sudo, or look at the result with --root DIR'
    fi
    if [ "$uninstall" = yes ]; then remove_all; else install_all; fi
}

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --prefix | --root | --from | --publisher)
                [ -n "${2:-}" ] || wrong_arguments "$1 needs a value"
                case $1 in
                    --prefix) prefix=$2 ;;
                    --root) root=$2 ;;
                    --from) from=$2 ;;
                    --publisher) publisher=$2 ;;
                esac
                shift 2
                ;;
            --uninstall) uninstall=yes && shift ;;
            --purge) purge=yes && shift ;;
            -h | --help) usage && exit 0 ;;
            *) wrong_arguments "unknown argument: $1" ;;
        esac
    done
    [ "$purge" = no ] || [ "$uninstall" = yes ] || wrong_arguments '--purge goes with --uninstall'
    # The prefix stands in the unit, where spaces and percent signs have a meaning.
    case $prefix in
        *[!A-Za-z0-9/._-]* | *//* | */./* | */../* | */. | */..) wrong_arguments "--prefix $prefix is no plain path" ;;
        /?*) prefix=${prefix%/} ;;
        *) wrong_arguments "--prefix $prefix is not absolute" ;;
    esac
    case $root in
        '') ;;
        /) wrong_arguments '--root / is this machine: leave it out' ;;
        /*) root=${root%/} ;;
        *) root=$PWD/${root%/} ;;
    esac
}

install_all() {
    here=$(cd "$(dirname "$0")" && pwd)
    tree=$here/../..
    find_parts
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    check_before
    add_user
    own_prefix
    install_program
    install_config
    install_unit
    check_after
    if [ "$changed" -eq 0 ]; then
        say "nothing to change: $version is installed in $root$prefix"
    else
        say "installed $version in $root$prefix ($changed changes)"
        [ -n "$root" ] || say "next: look at $etc/hb.yaml, then systemctl enable --now hb-daemon (restart it after an upgrade)"
    fi
}

# Names everything that is installed, and refuses what is not complete.
find_parts() {
    target=${CARGO_TARGET_DIR:-$tree/target}
    if [ -z "$from" ]; then
        for from in "$target/release" "$target/debug"; do [ ! -x "$from/hb" ] || break; done
    fi
    [ -x "$from/hb" ] || fail 66 "there is no program $from/hb" \
        'build it: cargo build --release --workspace --bin hb; or name its folder by --from'
    plugins=$from/plugins
    [ -d "$plugins" ] || plugins=$from/../plugins
    ls "$plugins"/*/plugin.wasm >/dev/null 2>&1 || fail 66 "there are no plugins in $plugins" \
        'build them: cargo xtask plugins'
    policies=$from/policies
    [ -d "$policies" ] || policies=$tree/policies
    [ -d "$policies" ] || fail 66 "there are no policies in $policies" 'take them from the source tree'
    if [ -z "$publisher" ]; then
        for publisher in "$plugins"/*.pub; do break; done
    fi
    [ -f "$publisher" ] || fail 66 "there is no public key $publisher" \
        'name the one that your plugins are signed with by --publisher'
}

# Runs the new program over the config that it will get, before anything is changed.
check_before() {
    version=$("$from/hb" --version) || fail 66 "$from/hb does not run on this machine" 'build it here, or for here'
    checked=$etc
    if [ ! -f "$etc/hb.yaml" ]; then
        checked=$scratch/etc
        mkdir "$checked"
        cp "$here/hb.yaml" "$here/telemetry_schema.yaml" "$checked"
        cp "$publisher" "$checked/publisher.pub"
    fi
    (
        export HB_PLUGINS_DIR="$plugins" HB_POLICIES_DIR="$policies"
        check_config "$from/hb" "$checked/hb.yaml"
    ) || fail 78 "$version does not accept $checked/hb.yaml with its plugins and policies; nothing was changed" \
            'mend what stands above; plugins of another publisher need their key in trusted_publishers'
}

check_after() {
    unset HB_PLUGINS_DIR HB_POLICIES_DIR
    check_config "$root$prefix/bin/hb" "$etc/hb.yaml" ||
        fail 78 "what was installed in $root$prefix does not accept $etc/hb.yaml" 'mend what stands above'
}

# What `hb check` says is shown only when it refuses. It gets a state of its own: that of the service is not root's.
check_config() {
    NO_COLOR=1 "$1" check --config "$2" --state "$scratch/state" >"$scratch/said" 2>&1 || {
        cat "$scratch/said" >&2
        return 1
    }
}

add_user() {
    [ -z "$root" ] || return 0
    if ! grep -q '^hb:' /etc/group; then
        groupadd --system hb || fail 77 'group hb cannot be made' 'make it by the means of your system, and come again'
        change 'made group hb'
    fi
    if ! id hb >/dev/null 2>&1; then
        useradd --system --gid hb --home-dir /var/lib/hb --no-create-home --shell /usr/sbin/nologin hb ||
            fail 77 'user hb cannot be made' 'make it by the means of your system, and come again'
        change 'made user hb'
    fi
}

# The prefix is closed to others, so it must be nobody else's.
own_prefix() {
    if [ -d "$root$prefix" ] && [ ! -f "$list" ] && [ -n "$(ls -A "$root$prefix")" ]; then
        fail 66 "$root$prefix holds something else" 'name an empty or new folder by --prefix'
    fi
    shared_folders "$(dirname "$root$prefix")" "$root/etc" "$root/var/lib" "$units"
}

install_program() {
    : >"$scratch/list"
    for folder in '' /bin /lib /lib/hb /lib/hb/plugins /share /share/hb /share/hb/config /share/hb/drop-ins \
        /share/man /share/man/man1 /share/bash-completion /share/bash-completion/completions; do
        folder 0750 root:hb "$root$prefix$folder"
    done
    for plugin in "$plugins"/*/plugin.wasm; do
        name=$(basename "$(dirname "$plugin")")
        folder 0750 root:hb "$root$prefix/lib/hb/plugins/$name"
        for part in plugin.wasm plugin.wasm.minisig plugin.yaml plugin.yaml.minisig; do
            [ ! -f "$plugins/$name/$part" ] || program 0640 "$plugins/$name/$part" "lib/hb/plugins/$name/$part"
        done
    done
    (cd "$policies" && find . -type d) | sort >"$scratch/folders"
    while read -r name; do folder 0750 root:hb "$share/policies${name#.}"; done <"$scratch/folders"
    (cd "$policies" && find . -type f -name '*.luau') | sort >"$scratch/files"
    while read -r name; do program 0640 "$policies/$name" "share/hb/policies/${name#./}"; done <"$scratch/files"
    for part in "$here"/drop-ins/*.conf; do program 0640 "$part" "share/hb/drop-ins/$(basename "$part")"; done
    program 0750 "$here/install.sh" share/hb/install.sh
    program 0750 "$from/hb" bin/hb
    # What the program says of itself: `man hb` finds it beside a program on the path, and so does bash.
    "$from/hb" man --out "$scratch/man"
    for part in "$scratch"/man/*.1; do program 0640 "$part" "share/man/man1/$(basename "$part")"; done
    "$from/hb" completions bash >"$scratch/completions"
    program 0640 "$scratch/completions" share/bash-completion/completions/hb
    # What an older version brought and this one does not.
    [ ! -f "$list" ] || while read -r name; do
        grep -qxF -- "$name" "$scratch/list" || drop "$root$prefix/$name"
    done <"$list"
    put 0640 root:hb "$scratch/list" "$list"
}

# The templates of this version lie beside the program, so that the next one knows what the site has changed.
install_config() {
    folder 0750 root:hb "$etc"
    config "$here/hb.yaml" hb.yaml
    config "$here/telemetry_schema.yaml" telemetry_schema.yaml
    config "$publisher" publisher.pub
    folder 0700 hb:hb "$state"
}

config() {
    before=$share/config/$2
    if [ ! -f "$etc/$2" ] || { [ -f "$before" ] && cmp -s "$etc/$2" "$before"; }; then
        put 0640 root:hb "$1" "$etc/$2"
    elif cmp -s "$etc/$2" "$1"; then
        # As it was put, or brought to it by hand: only its owner and mode are looked after.
        put 0640 root:hb "$1" "$etc/$2"
    elif [ ! -f "$before" ] || ! cmp -s "$before" "$1"; then
        put 0640 root:hb "$1" "$etc/$2.new"
        say "kept $etc/$2, which was changed here; what this version brings lies in $2.new"
    fi
    put 0640 root:hb "$1" "$before"
}

install_unit() {
    sed "s|/opt/hb|$prefix|g" "$here/$unit" >"$scratch/$unit"
    before=$changed
    put 0644 root:root "$scratch/$unit" "$units/$unit"
    [ "$before" -eq "$changed" ] || systemd_reads_again
}

remove_all() {
    [ -n "$root" ] || [ ! -f "$units/$unit" ] || [ ! -d /run/systemd/system ] || systemctl disable --now "$unit"
    if [ -f "$units/$unit" ]; then
        drop "$units/$unit"
        systemd_reads_again
    fi
    if [ -f "$list" ]; then
        while read -r name; do drop "$root$prefix/$name"; done <"$list"
        for name in hb.yaml telemetry_schema.yaml publisher.pub; do drop "$share/config/$name"; done
        drop "$list"
        # Whatever else lies there stays, and its folder with it.
        find "$root$prefix" -depth -type d -exec rmdir {} + 2>/dev/null || say "not empty, so it stays: $root$prefix"
    fi
    if [ "$purge" = yes ]; then
        for folder in "$etc" "$state" "$units/$unit.d"; do
            [ ! -e "$folder" ] || { rm -rf "$folder" && change "removed $folder"; }
        done
        if [ -z "$root" ] && id hb >/dev/null 2>&1; then userdel hb && change 'removed user hb'; fi
    fi
    if [ "$changed" -eq 0 ]; then
        say "nothing to remove in $root$prefix"
    else
        [ "$purge" = yes ] || say "kept $etc and $state; --purge removes them too"
        say "removed hb from $root$prefix ($changed changes)"
    fi
}

# Folders that belong to the machine: made where they are missing, never changed.
shared_folders() {
    (umask 022 && mkdir -p "$@")
}

systemd_reads_again() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
}

# program MODE FROM NAME: puts a file below the prefix and remembers it.
program() {
    put "$1" root:hb "$2" "$root$prefix/$3"
    echo "$3" >>"$scratch/list"
}

# put MODE OWNER FROM TO: a file appears whole under its name, or stays as it is. A daemon that watches the folder takes
# no notice of what ends in .tmp.
put() {
    if [ ! -L "$4" ] && [ -f "$4" ] && cmp -s "$3" "$4" && is_set "$1" "$2" "$4"; then return 0; fi
    rm -f "$4.hb.tmp"
    cp "$3" "$4.hb.tmp"
    set_owner "$1" "$2" "$4.hb.tmp"
    mv -f "$4.hb.tmp" "$4"
    change "wrote $4"
}

# folder MODE OWNER PATH
folder() {
    if [ -d "$3" ] && is_set "$1" "$2" "$3"; then return 0; fi
    [ -d "$3" ] || mkdir "$3"
    set_owner "$1" "$2" "$3"
    change "made $3"
}

# Modes are what they should be; owners only where this machine knows them.
is_set() {
    if [ -n "$root" ]; then
        [ -n "$(find "$3" -prune -perm "$1")" ]
    else
        [ -n "$(find "$3" -prune -perm "$1" -user "${2%:*}" -group "${2#*:}")" ]
    fi
}

set_owner() {
    [ -n "$root" ] || chown "$2" "$3"
    chmod "$1" "$3"
}

drop() {
    [ -e "$1" ] || [ -L "$1" ] || return 0
    rm -f "$1"
    change "removed $1"
}

change() {
    changed=$((changed + 1))
    say "$1"
}

say() {
    echo "$1"
}

wrong_arguments() {
    echo "install.sh: $1" >&2
    usage >&2
    exit 64
}

# fail CODE WHAT HELP
fail() {
    printf 'install.sh: %s\n  help: %s\n' "$2" "$3" >&2
    exit "$1"
}

main "$@"
