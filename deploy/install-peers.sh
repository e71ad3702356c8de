#!/usr/bin/env bash
# Install the real peers that the integration tests talk to: Orthanc, DCMTK, dicom3tools, GDCM's tools, PixelMed,
# and rsyslog as an audit record repository.
set -euo pipefail
packages=(dcmtk orthanc orthanc-dicomweb dicom3tools libgdcm-tools pixelmed-apps rsyslog rsyslog-openssl)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
  echo "peers: all installed"
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "peers: needs root to install ${missing[*]}: run 'sudo make peers'" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
# Debian starts Orthanc on its own where it can; the tests start their own on loopback.
service orthanc stop >/dev/null 2>&1 || true
# Nor is it to become the log of a machine that had another.
case " ${missing[*]} " in
  *" rsyslog "*) systemctl disable --now rsyslog.service syslog.socket >/dev/null 2>&1 || true ;;
esac
echo "peers: installed ${missing[*]}"
