#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
# Builds the kernel programs into ../prebuilt, with the toolchain's id and a hash of the sources beside.
#
#   build.sh           builds and replaces the committed object
#   build.sh --check   compares the committed object with its sources and, where the toolchain is the one
#                      that made it, builds again and compares the bytes
#   build.sh --hash    prints the hash of the sources
#
# Needs a compiler whose standard library's sources are there (rustup's nightly with rust-src, or Debian's
# rustc-web with rust-web-src) and bpf-linker. RUSTC, CARGO and BPF_LINKER choose them.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")"
here=$PWD root=$(cd ../.. && pwd) prebuilt=$(cd .. && pwd)/prebuilt

hash_sources() {
  (cd .. && find common/src programs/src -name '*.rs' -type f | sort |
    cat - <(printf 'programs/%s\n' Cargo.toml Cargo.lock build.sh) | xargs sha256sum) | sha256sum | cut -d' ' -f1
}

recorded() { sed -n "s/^$1 = \"\(.*\)\"$/\1/p" "$prebuilt/weft.bpf.toml"; }

if [ "${1:-}" = --hash ]; then
  hash_sources
  exit
fi

rustc=${RUSTC:-/usr/bin/rustc} cargo=${CARGO:-/usr/bin/cargo}
linker=${BPF_LINKER:-$(command -v bpf-linker || echo /opt/bpf/bin/bpf-linker)}
strip=${LLVM_STRIP:-llvm-strip} nm=${LLVM_NM:-llvm-nm} objcopy=${LLVM_OBJCOPY:-llvm-objcopy}
for tool in "$rustc" "$cargo" "$linker" "$strip" "$nm" "$objcopy"; do
  command -v "$tool" >/dev/null || { echo "$tool is not there; cargo xtask setup --bpf installs it" >&2; exit 1; }
done
toolchain="$("$rustc" --version), $("$linker" --version), llvm-strip $("$strip" --version | sed -n "s/.*version \([0-9.]*\).*/\1/p" | head -1)"

# The object must not tell where it was built. What is left of debugging is BTF, which the kernel reads.
build() {
  local sysroot home flags
  sysroot=$("$rustc" --print sysroot) home=$(readlink -f "${CARGO_HOME:-$HOME/.cargo}")
  flags=("-Clinker=$linker" '--cfg=bpf_target_arch="x86_64"' -Cdebuginfo=2 -Clink-arg=--btf
    "--remap-path-prefix=$root=/weft" "--remap-path-prefix=$home=/cargo" "--remap-path-prefix=$sysroot=/rust")
  RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}") \
    "$cargo" build --locked --release --target bpfel-unknown-none -Z build-std=core --target-dir target >&2
  "$strip" -g -o "$1" target/bpfel-unknown-none/release/weft
  # Names of functions carry a number of the crate, which cargo makes of its path.
  names=$(mktemp)
  "$nm" --format=just-symbols "$1" | sed -n 's/^\(_R.*\)Cs[0-9A-Za-z]*_4weft\(.*\)$/& \1C4weft\2/p' | sort -u >"$names"
  "$objcopy" --redefine-syms="$names" "$1"
  rm "$names"
}

case "${1:-}" in
--check)
  [ "$(recorded sources)" = "$(hash_sources)" ] ||
    { echo "the kernel programs changed since prebuilt/weft.bpf.o was made: cargo xtask bpf" >&2; exit 1; }
  if [ "$(recorded toolchain)" != "$toolchain" ]; then
    echo "made by another toolchain ($(recorded toolchain)), so the bytes are not compared"
    exit
  fi
  again=$(mktemp)
  trap 'rm -f "$again"' EXIT
  build "$again"
  cmp "$again" "$prebuilt/weft.bpf.o" || { echo "prebuilt/weft.bpf.o is not what its sources give" >&2; exit 1; }
  echo "prebuilt/weft.bpf.o is what its sources give"
  ;;
'')
  mkdir -p "$prebuilt"
  build "$prebuilt/weft.bpf.o"
  printf '# Written by programs/build.sh.\ntoolchain = "%s"\nsources = "%s"\n' "$toolchain" "$(hash_sources)" \
    >"$prebuilt/weft.bpf.toml"
  echo "$prebuilt/weft.bpf.o"
  ;;
*)
  echo "usage: build.sh [--check | --hash]" >&2
  exit 2
  ;;
esac
