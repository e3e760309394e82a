#!/bin/sh
# A browser for the tests that open pages: Debian's chromium, where it can be installed. Where it
# cannot, a sentence says so, and those tests are skipped.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        echo "browser: $(command -v "$name")"
        exit 0
    fi
done

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "no browser: install chromium by hand (on Debian: sudo apt-get install chromium);" \
        "until then the tests that open pages are skipped"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
if apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
    echo "browser: $(command -v chromium)"
else
    echo "no browser: apt-get could not install chromium; the tests that open pages are skipped"
fi
