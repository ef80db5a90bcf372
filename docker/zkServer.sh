#!/bin/sh
# Runs ZooKeeper from Debian's packages: `zkServer.sh start-foreground FILE`, as the script of that name in other images.
set -eu
if [ "$1" != start-foreground ]; then
    echo "zkServer.sh: only start-foreground is known here, not $1" >&2
    exit 1
fi
classes=
for jar in zookeeper zookeeper-jute slf4j-api slf4j-simple snappy-java metrics-core; do
    classes=$classes/usr/share/java/$jar.jar:
done
# The flags are several words.
# shellcheck disable=SC2086
exec java ${SERVER_JVMFLAGS:-} -cp "${classes%:}" org.apache.zookeeper.server.quorum.QuorumPeerMain "$2"
