#!/usr/bin/env bash
# What action.yml runs: its inputs come as variables, so that nothing of them is taken for a command.
set -euo pipefail

command=(longshore push)
add() { # add PREFIX TEXT: each line of TEXT that is not empty, behind PREFIX
    local line
    while IFS= read -r line; do
        if [ -n "$line" ]; then command+=("$1$line"); fi
    done <<<"$2"
}
add "" "${OPTIONS:-}"
add --tag= "${TAGS:-}"

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
command+=("--digest-file=$results/digest" "--metadata-file=$results/metadata")
if [ -n "${USERNAME:-}" ]; then
    command+=("--creds=$USERNAME" --password-stdin)
fi
command+=(-- "${SOURCE:?}")
add "" "${DESTINATION:?}"

printf '%s' "${PASSWORD:-}" | "${command[@]}"
{
    echo "digest=$(<"$results/digest")"
    echo "metadata=$(<"$results/metadata")"
} >>"$GITHUB_OUTPUT"
