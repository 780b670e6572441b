#!/bin/sh
# debian_source.sh PACKAGE VERSION WORKDIR TARBALL: the upstream tarball out of a Debian source package.
#
# Debian releases carry older versions, so this reads the machine's own apt sources (mirror, keys,
# proxies) and asks the same hosts for newer suites, in a private apt directory: nothing of the
# system's apt is changed, and an ordinary user may run it. The caller checks the tarball's checksum.
set -eu
package=$1 version=$2 work=$3 tarball=$4
command -v apt-get || { echo "no apt-get on this machine"; exit 1; }
rm -rf "$work"
mkdir -p "$work/conf" "$work/sources" "$work/lists/partial" "$work/cache/archives/partial"
trap 'rm -rf "$work"' EXIT

cp /etc/apt/apt.conf.d/* "$work/conf/" || true # one that this user may not read can be missed
cat > "$work/conf/zzz-vpxrc" <<CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::State::Lists "$work/lists";
Dir::Cache "$work/cache";
Acquire::Languages "none";
APT::Sandbox::User ""; // _apt could not reach this directory
// Hooks would work on the system's caches.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
echo "Dir::Etc::parts \"$work/conf\";" > "$work/apt.conf"
export APT_CONFIG="$work/apt.conf"

for suite in sid testing stable; do
  # deb822: every enabled stanza's URIs and Signed-By (which may go on over indented lines).
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -r "$file" ] && cat "$file" && echo
  done | awk -v suite=$suite '
    function flush() {
      if (uris != "" && enabled && !seen[uris]++)
        printf "Types: deb-src\n%sSuites: %s\nComponents: main\n%s\n", uris, suite, key
      uris = key = field = ""; enabled = 1
    }
    BEGIN { enabled = 1 }
    /^#/ { next }
    /^[ \t]*$/ { flush(); next }
    /^[^ \t]/ { field = tolower($1) }
    field == "enabled:" && tolower($2) ~ /^(no|false|off|0)$/ { enabled = 0 }
    field == "uris:" { uris = uris $0 "\n" }
    field == "signed-by:" { key = key $0 "\n" }
    END { flush() }' > "$work/sources/debian.sources"
  # One line each: deb [options] URI suite components
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -r "$file" ] && cat "$file" && echo
  done | awk -v suite=$suite '
    $1 == "deb" || $1 == "deb-src" {
      options = match($0, /\[[^]]*\]/) ? substr($0, RSTART, RLENGTH) " " : ""
      sub(/\[[^]]*\]/, "")
      if (!seen[$2]++) print "deb-src " options $2, suite, "main"
    }' > "$work/sources/debian.list"

  # Third-party hosts without such a suite make this fail as a whole; the lists that came are there.
  apt-get update || true
  for full in $(apt-cache showsrc "$package" | awk -v v="$version-" '$1 == "Version:" && index($2, v) == 1 { print $2 }'); do
    # The tarball alone: the description beside it may be gone already, and nothing here reads it.
    (cd "$work" && apt-get source --download-only --tar-only "$package=$full") || continue
    mv "$work/${package}_$version.orig.tar.gz" "$tarball"
    exit 0
  done
done
echo "none of the machine's apt hosts carries $package $version in sid, testing or stable"
exit 1
