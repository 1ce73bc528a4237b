#!/usr/bin/env bash
# Build dicomward_VERSION_ARCH.deb in dist/. Needs dpkg-deb, and pip with access to an index while it builds; the
# package then installs and runs without any network.
#
#   packaging/debian/build.sh [OUTPUT-DIRECTORY]
#
# Wheels only, for the Python of the distribution (PYTHON, default /usr/bin/python3). They lie in /usr/lib/dicomward and
# are seen by dicomward alone.
set -euo pipefail
umask 022
cd "$(dirname "$0")/../.."

output=${1:-dist}
target=${PYTHON:-/usr/bin/python3}
pip=${PIP_PYTHON:-.venv/bin/python}
say() { printf 'deb: %s\n' "$*" >&2; }

version=$("$target" -c 'import re, pathlib; print(re.search(r"__version__ = \"(.+?)\"", pathlib.Path("src/dicomward/__init__.py").read_text())[1])')
# Debian sorts ~ before everything: a development version is older than its release.
debian_version=$(printf '%s' "$version" | sed -E 's/\.?(dev|a|b|rc)/~\1/')
architecture=$(dpkg --print-architecture)
minor=$("$target" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$target" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{DEBIAN,usr/bin,usr/lib/dicomward,usr/lib/systemd/system,usr/share/dicomward,usr/share/doc/dicomward,etc/default}

say "building the wheel of dicomward $version"
"$pip" -m pip wheel --quiet --no-deps --wheel-dir "$work/wheel" .
say "collecting wheels for Python $minor"
"$pip" -m pip install --quiet --no-compile --only-binary=:all: --python-version "$minor" --implementation cp \
    --target "$root/usr/lib/dicomward/packages" "$work"/wheel/*.whl
# The programs of our dependencies, their tests, and what a compiler would need.
rm -rf "$root/usr/lib/dicomward/packages/bin" "$root"/usr/lib/dicomward/packages/*/tests
find "$root/usr/lib/dicomward" -name '__pycache__' -type d -prune -exec rm -rf {} +

install -m 755 packaging/debian/dicomward "$root/usr/bin/dicomward"
install -m 755 packaging/systemd/daily-backup "$root/usr/lib/dicomward/daily-backup"
install -m 644 packaging/systemd/*.service packaging/systemd/*.socket packaging/systemd/*.timer "$root/usr/lib/systemd/system/"
install -m 644 packaging/debian/default "$root/etc/default/dicomward"
install -m 644 packaging/prometheus/*.yml packaging/grafana/dicomward.json packaging/way-back/haproxy.cfg "$root/usr/share/dicomward/"
install -m 755 packaging/edge-update "$root/usr/share/dicomward/edge-update"
install -m 644 README.md CHANGELOG.md SECURITY.md "$root/usr/share/doc/dicomward/"
cp -r docs "$root/usr/share/doc/dicomward/docs"
install -m 644 packaging/debian/copyright "$root/usr/share/doc/dicomward/copyright"

for script in postinst prerm postrm; do install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"; done
echo /etc/default/dicomward >"$root/DEBIAN/conffiles"
sed -e "s/@VERSION@/$debian_version/; s/@ARCHITECTURE@/$architecture/; s/@MINOR@/$minor/; s/@NEXT@/$next/" \
    -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f1)/" packaging/debian/control.in >"$root/DEBIAN/control"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$root" -type d -exec chmod 755 {} +

mkdir -p "$output"
package=$output/dicomward_${debian_version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >&2
echo "$package"
