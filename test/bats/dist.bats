# What `make dist` packs.
load common

# A clone of its own, of what is built from: its only commit is the tree as it is here.
prepare() {
    clone=$T/clone
    mkdir "$clone"
    cp -r .gitignore LICENSE Makefile README.md common cuda man packaging pipelines stages "$clone"
    mkdir "$clone/test"
    cp -r test/Makefile test/tools "$clone/test"
    git init -q "$clone"
    git -C "$clone" add .
    git_commit
    version=$(st-ls --version)
    name=seekpipe-${version##* }
    tarball=$clone/build/$name.tar.gz
}

git_commit() {
    git -C "$clone" -c user.name=tests -c user.email=tests@localhost commit -q -m all --date=2026-01-02T03:04:05Z
}

dist() {
    make -s -C "$clone" dist CUDA=0
}

@test "dist: the same commit gives the same bytes, whatever umask, times and modes of files, and time zone" {
    dist
    sha256sum "$tarball" >"$T/sum"
    mv "$tarball" "$T/first.tar.gz"
    find "$clone" -path "$clone/.git" -prune -o -type f -exec touch -d 2020-01-01 {} +
    chmod g+w "$clone/README.md"
    (umask 077 && TZ=Asia/Tokyo dist)
    cmp "$T/first.tar.gz" "$tarball"
    [ "$(tar tvzf "$tarball" | awk '{ print $2 }' | sort -u)" = root/root ]
    [ "$(tar tvzf "$tarball" | cut -c 1-10 | sort -u)" = $'-rw-r--r--\n-rwxr-xr-x\ndrwxr-xr-x' ]
}

@test "dist: the tarball has every file of the commit in a folder named for the version, and installs without git" {
    dist
    diff <(git -C "$clone" ls-files | sed "s|^|$name/|" | sort) <(tar tzf "$tarball" | grep -v '/$' | sort)
    tar xzf "$tarball" -C "$T"
    make -s -C "$T/$name" -o all BIN="$PWD/$BIN" DESTDIR="$T/root" PREFIX=/usr CUDA=0 install
    [ "$("$T/root/usr/bin/st-ls" --version)" = "$version" ]
    [ "$("$T/root/usr/bin/v4-experts" --version)" = "v4-experts (seekpipe) ${version##* }" ]
}

@test "dist: changes without a commit, and a tree that is no clone, are refused" {
    echo more >>"$clone/README.md"
    run dist
    [ "$status" -ne 0 ]
    [[ $output == *'dist: there are changes that are not committed; commit or stash them'* ]]
    rm -rf "$clone/.git"
    GIT_CEILING_DIRECTORIES=$T run dist
    [ "$status" -ne 0 ]
    [[ $output == *'dist: a tarball is made of a commit: run this in a clone of the repository'* ]]
    [ ! -e "$tarball" ]
}

@test "make help has a line for every target that people call" {
    make -s help >"$T/help"
    awk '/^\.PHONY:/ { for (i = 2; i <= NF; i++) print $i }' Makefile test/Makefile packaging/Makefile >"$T/targets"
    while read -r target; do
        case $target in cuda | FORCE | help | all | tools | fuzzers | portable-programs) continue ;; esac
        grep -q "^make $target " "$T/help" || { echo "$target" && missing=1; }
    done <"$T/targets"
    [ -z "${missing-}" ]
}
