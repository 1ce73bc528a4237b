#!/usr/bin/env bash
# Set up what the project needs, inside the clone; a second run has nothing to do and ends at once.
#
#   tools/setup.sh            .venv with the package, its tests' and its checks' tools
#   tools/setup.sh peers      the above, and the real peers of the tests: Debian packages (as root only), dcmjs-dimse and
#                             csaf-validator-lib
#   tools/setup.sh rivals     the above, and what the benchmarks compare with
#
# Outside the clone only Debian packages are installed. What can't be installed is named here, and its tests are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv
stamp=.setup-done
what=${1:-python}
packages=(dcmtk postgresql stunnel4 faketime slapd strongswan-pki libstrongswan-standard-plugins libstrongswan-extra-plugins ldap-utils haproxy orthanc orthanc-dicomweb libgdcm-tools odil libpixelmed-java default-jre-headless nodejs npm openssl prometheus rsyslog rsyslog-gnutls softhsm2 chromium poppler-utils)
rivals=(nginx-light libnginx-mod-stream nmap nftables)
dcmjs_dimse=0.3.3
csaf_validator=2.0.10

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Everything that decides what is installed; the stamp holds its hash.
key() {
    { cat pyproject.toml tools/setup.sh; "$python" -c 'import sys; print(sys.version, sys.prefix)'; pwd; } | sha256sum | cut -c1-32
}

done_before() { [ -e "$stamp" ] && grep -qx "$1 $2" "$stamp"; }

apt_install() {
    # Orthanc's package would start a server of its own: policy-rc.d is Debian's way to say no while we install.
    local policy=/usr/sbin/policy-rc.d made=no status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=yes
    fi
    # The second try is for a machine whose package lists are missing or old.
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null 2>&1 || {
        apt-get -qq update >&2 &&
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2
    } || status=$?
    [ "$made" = no ] || rm -f "$policy"
    return "$status"
}

has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

set_up_python() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "$python is missing or older than 3.11; set PYTHON to a newer one, for example: make PYTHON=python3.12 ..."
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "installing python3-venv"
            apt_install python3-venv || fail "apt-get could not install python3-venv"
        else
            fail "$python has no venv module; ask an administrator for: apt-get install python3-venv"
        fi
    fi
    say "making $venv (a minute or two)"
    "$python" -m venv "$venv"
    mkdir -p "$venv/cache"
    PIP_CACHE_DIR="$PWD/$venv/cache/pip" PIP_DISABLE_PIP_VERSION_CHECK=1 \
        "$venv/bin/python" -m pip install -qq --editable '.[test,check]' ||
        fail "pip could not install the packages that pyproject.toml names (its reason stands above)"
}

# Install the Debian packages that are missing, or say which tests go without.
install_packages() {
    local missing=() package status=0
    for package in "$@"; do
        case $package in
        # Another distribution of Node brings npm along, and Debian's npm would conflict with it.
        nodejs) command -v node >/dev/null || missing+=("$package") ;;
        npm) command -v npm >/dev/null || missing+=("$package") ;;
        nginx-light) [ -x /usr/sbin/nginx ] || missing+=("$package") ;;
        openssl) command -v openssl >/dev/null || missing+=("$package") ;;
        *) has_package "$package" || missing+=("$package") ;;
        esac
    done
    if [ ${#missing[@]} -gt 0 ]; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            say "not installed: ${missing[*]}"
            say "their tests will be skipped; as root: apt-get install --no-install-recommends ${missing[*]}"
            return 1
        else
            say "installing ${missing[*]}"
            if ! apt_install "${missing[@]}"; then
                say "not all together; trying one by one"
                for package in "${missing[@]}"; do
                    apt_install "$package" || { say "could not install $package: its tests will be skipped"; status=1; }
                done
                return "$status"
            fi
        fi
    fi
}

install_node_packages() {
    if command -v node >/dev/null && command -v npm >/dev/null; then
        mkdir -p "$venv/node"
        # No scripts of packages run here; npm's cache stays in the clone.
        npm install --silent --ignore-scripts --no-audit --no-fund --prefix "$venv/node" --cache "$venv/cache/npm" \
            "dcmjs-dimse@$dcmjs_dimse" "@secvisogram/csaf-validator-lib@$csaf_validator" >/dev/null 2>&1 ||
            { say "npm could not install dcmjs-dimse and csaf-validator-lib: their tests will be skipped"; return 1; }
    else
        say "node or npm is missing: the tests of dcmjs-dimse and csaf-validator-lib will be skipped"
        return 1
    fi
}

hash=$(key)
if ! done_before python "$hash" || [ ! -x "$venv/bin/dicomward" ]; then
    rm -f "$stamp"
    set_up_python
    echo "python $hash" >"$stamp"
fi
# Only what succeeded is noted, so that the next run tries the rest again.
once() {
    local name=$1
    shift
    done_before "$name" "$hash" || { "$@" && echo "$name $hash" >>"$stamp"; } || true
}

case $what in
python) ;;
peers | rivals)
    once peers install_packages "${packages[@]}"
    once node-packages install_node_packages
    [ "$what" = peers ] || once rivals install_packages "${rivals[@]}"
    ;;
*) fail "don't know '$what'; the words are: python, peers, rivals" ;;
esac
