#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
# Builds the kernel programs to the object file that is named ($1). Needs a BPF toolchain:
#   - rustup's nightly with rust-src and bpf-linker, or
#   - Debian's rustc-web, cargo-web, rust-web-src and a bpf-linker built against its LLVM.
# BPF_RUSTC, BPF_CARGO and BPF_LINKER choose another one. Prints the toolchain's id.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OBJECT}
linker=${BPF_LINKER:-$(command -v bpf-linker || echo /opt/bpf/bin/bpf-linker)}
[ -x "$linker" ] || { echo "no bpf-linker: cargo install bpf-linker --locked, or set BPF_LINKER" >&2; exit 1; }
if [ -n "${BPF_RUSTC:-}" ]; then
  rustc=$BPF_RUSTC cargo=${BPF_CARGO:-cargo}
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/core" ]; then
  rustc=/usr/bin/rustc cargo=/usr/bin/cargo
else
  rustc=$(rustup which --toolchain nightly rustc) cargo=$(rustup which --toolchain nightly cargo)
fi
root=$(cd "$here/../.." && pwd)
sysroot=$("$rustc" --print sysroot)
home=${CARGO_HOME:-$HOME/.cargo}
target=${CARGO_TARGET_DIR:-$root/target}/bpf
cd "$here"
# The object must not tell where it was built.
RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' \
  "-Clinker=$linker" '--cfg=bpf_target_arch="x86_64"' -Cdebuginfo=2 -Clink-arg=--btf \
  "--remap-path-prefix=$root=/weft" "--remap-path-prefix=$home=/cargo" "--remap-path-prefix=$(readlink -f "$home")=/cargo")"--remap-path-prefix=$sysroot=/rust" \
  "$cargo" build --locked --release --target bpfel-unknown-none -Z build-std=core --target-dir "$target" >&2
install -D -m 644 "$target/bpfel-unknown-none/release/weft" "$out"
echo "$("$rustc" --version), $("$linker" --version)"
