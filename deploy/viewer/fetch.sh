#!/bin/sh
# Fetch the built OHIF viewer: sh deploy/viewer/fetch.sh FOLDER
# npm has it as a package, whose digest is pinned here: what has another is not unpacked. Needs npm, sha512sum and tar.
set -eu
version=3.13.2
sha512=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10

folder=$1
partial=$folder.part
rm -rf "$partial"
mkdir -p "$partial"
trap 'rm -rf "$partial"' EXIT
npm pack --loglevel=error --pack-destination "$partial" "@ohif/app@$version" > /dev/null
echo "$sha512  $partial/ohif-app-$version.tgz" | sha512sum --check --quiet
mkdir "$partial/viewer"
tar -xzf "$partial/ohif-app-$version.tgz" -C "$partial/viewer" --strip-components=2 package/dist
rm -rf "$folder"
mv "$partial/viewer" "$folder"
