#!/bin/sh
# Starts Ceph's monitor, object daemon and S3 gateway in one folder, makes the user, and waits.
#
#   S3_KEY=... S3_SECRET=... sh infra/store/start.sh
#
# STORE (/store) keeps everything; SIZE (100G) is the most it may hold, written as it fills; LISTEN (0.0.0.0:9000) is
# the gateway's address. MON_PORT (3300) is used on loopback alone.
set -eu

: "${S3_KEY:?set S3_KEY}" "${S3_SECRET:?set S3_SECRET}"
STORE=${STORE:-/store} SIZE=${SIZE:-100G} LISTEN=${LISTEN:-0.0.0.0:9000} MON_PORT=${MON_PORT:-3300}
export CEPH_CONF="$STORE/ceph.conf"
mkdir -p "$STORE/mon" "$STORE/osd" "$STORE/run" "$STORE/log"
[ -f "$STORE/fsid" ] || uuidgen > "$STORE/fsid"

cat > "$CEPH_CONF" <<CONF
[global]
fsid = $(cat "$STORE/fsid")
mon host = v2:127.0.0.1:$MON_PORT
ms bind msgr1 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
ms mon client mode = crc
ms mon service mode = crc
ms mon cluster mode = crc
run dir = $STORE/run
admin socket = $STORE/run/\$name.asok
log file = $STORE/log/\$name.log
mon data = $STORE/mon
osd data = $STORE/osd
mon initial members = a
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 2000
osd objectstore = bluestore
bluestore block size = $(numfmt --from=iec "$SIZE")
bluestore block create = true
osd memory target = 1G
rgw frontends = beast endpoint=$LISTEN
rgw enable usage log = false
rgw enable ops log = false
CONF

# daemons and their end
pids=""
run() { "$@" -f -c "$CEPH_CONF" & pids="$pids $!"; }
trap 'kill $pids 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM

if [ ! -e "$STORE/mon/store.db" ]; then
  monmaptool --create --clobber --fsid "$(cat "$STORE/fsid")" --addv a "[v2:127.0.0.1:$MON_PORT]" "$STORE/monmap"
  ceph-mon --mkfs -i a --monmap "$STORE/monmap"
fi
run ceph-mon -i a
if [ ! -e "$STORE/osd.made" ]; then
  osd=$(uuidgen)
  ceph osd new "$osd" > /dev/null
  ceph-osd -i 0 --mkfs --osd-uuid "$osd"
  touch "$STORE/osd.made"
fi
run ceph-osd -i 0
rm -f "$STORE/log/client.rgw.log"
run radosgw -n client.rgw

# the user with the keys that compose hands to everybody
until radosgw-admin user info --uid=maskmill > /dev/null 2>&1 ||
  radosgw-admin user create --uid=maskmill --display-name=maskmill \
    --access-key="$S3_KEY" --secret-key="$S3_SECRET" > /dev/null 2>&1; do
  sleep 1
done
radosgw-admin user modify --uid=maskmill --access-key="$S3_KEY" --secret-key="$S3_SECRET" > /dev/null
until grep -q "starting handler: beast" "$STORE/log/client.rgw.log"; do sleep 1; done
echo "ready: S3 at $LISTEN"

# whatever ends first ends all: what started this starts it again
while kill -0 $pids 2>/dev/null; do sleep 5 & wait $!; done
echo "a daemon ended: see $STORE/log" >&2
exit 1
