#!/usr/bin/env bash
# Fuzzes each target, or those that are named, with a number of executions each.
#
#   fuzz/run.sh 100000               all of them: the short form, a minute or two
#   fuzz/run.sh 10000000 token       one of them, long
#   fuzz/run.sh 0                    only builds them
#   ASAN=1 fuzz/run.sh 10000000      with AddressSanitizer, for the code of others that is not safe Rust; needs cargo-fuzz
#
# What was found is kept in fuzz/corpus and goes on from there; an input that fails is in fuzz/artifacts, and
# `fuzz/target/…/release/TARGET FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")"

runs=${1:?how many executions}
shift
triple=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  mapfile -t targets < <(sed -n 's/^name = "\(.*\)"/\1/p' Cargo.toml | tail -n +2)
fi

if [ -z "${ASAN:-}" ]; then
  # What cargo-fuzz sets, but for the sanitizer, which needs an unstable compiler.
  RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
    cargo build --release --target "$triple" --bins
fi

[ "$runs" -gt 0 ] || exit 0
for target in "${targets[@]}"; do
  echo "--- $target: $runs executions"
  mkdir -p "corpus/$target" "artifacts/$target"
  options=("-runs=$runs" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0)
  seeds=()
  [ -d "seeds/$target" ] && seeds=("seeds/$target")
  if [ -z "${ASAN:-}" ]; then
    "target/$triple/release/$target" "corpus/$target" "${seeds[@]}" "${options[@]}" \
      "-artifact_prefix=artifacts/$target/"
  else
    RUSTC_BOOTSTRAP=1 cargo fuzz run "$target" "corpus/$target" "${seeds[@]}" -- "${options[@]}"
  fi
done
