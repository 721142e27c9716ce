#!/usr/bin/env bash
# Several hosts on this one machine, for tests of clusters: each has its own network, processes, /tmp/ray, home folder
# and sshd, and sees the same files otherwise.
#
#   hosts.sh up FOLDER COUNT [VENV]   make them; FOLDER/addresses has name and address of each, FOLDER/key lets root in;
#                                     VENV is a Python that each finds, read-only, as ~/tunekit/env
#   hosts.sh down FOLDER              end them and take away every trace but FOLDER; also what `up` left half-made
#
# Needs root, iproute2, util-linux, openssh-server and openssh-client. What it makes is written down in FOLDER, names
# before they are used, and each process writes itself down before it does anything else, as `up` may be killed any time;
# `down` ends and deletes what is written there, nothing else. A host whose record is gone ends itself.
set -eEuo pipefail

command=${1:?up or down}
folder=$(realpath -m "${2:?a folder}")

note() { echo "$2" >>"$folder/made/$1"; }
noted() { [ ! -f "$folder/made/$1" ] || tac "$folder/made/$1"; }
# When a process began, as a pid is used again, with another start; nothing for one that ended and waits to be reaped.
start_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'; }

end_processes() {
	while read -r pid start; do # the process whose end, by --kill-child, is the end of all in its namespace
		[ "$(start_of "$pid")" = "$start" ] && kill -KILL "$pid" 2>/dev/null || true
		for _ in $(seq 50); do [ "$(start_of "$pid")" = "$start" ] && sleep 0.1 || break; done
	done < <(noted processes)
}

down() {
	end_processes
	while read -r name; do
		for _ in $(seq 50); do ip netns delete "$name" 2>/dev/null || true; [ -e "/run/netns/$name" ] && sleep 0.1 || break; done
	done < <(noted namespaces)
	end_processes # one that wrote itself down meanwhile; one that comes later finds its namespace gone
	while read -r name; do ip link delete "$name" 2>/dev/null || true; done < <(noted links)
	while read -r path; do rmdir "$path" 2>/dev/null || true; done < <(noted folders)
	rm -rf "$folder/made"
}

# A network of 10.213.0.0/16 that nothing here has an address in or a route to.
free_network() {
	for third in $(seq 0 255); do
		ip -4 route show to match "10.213.$third.1" | grep -qv '^default' || { echo "10.213.$third"; return; }
	done
	echo "every network of 10.213.0.0/16 is taken" >&2
	exit 1
}

# What a host's first process does, in namespaces of its own. bash stays: it is the parent of all who lose theirs.
first_process() {
	local run=$1 host=$2 address=$3 venv=$4
	mount --make-rprivate /
	if [ -n "$venv" ]; then
		mount --bind "$venv" "$host/home/tunekit/env"
		mount -o remount,bind,ro "$host/home/tunekit/env"
	fi
	mount --bind "$host/passwd" /etc/passwd
	mount --bind "$host/shadow" /etc/shadow
	mount --bind "$host/ray" /tmp/ray
	mount -t tmpfs tmpfs /dev/shm
	mount -t tmpfs tmpfs /run
	mkdir -m 755 /run/sshd
	hostname "$(basename "$host")"
	/usr/sbin/sshd -D -e -f /dev/null -o "ListenAddress=$address" -o "HostKey=$host/host_key" -o PidFile=none \
		-o UsePAM=no -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PermitRootLogin=prohibit-password \
		-o StrictModes=no -o "AuthorizedKeysFile=$folder/key.pub" -o MaxStartups=100 >"$host/sshd.log" 2>&1 &
	while [ -e "$folder/made/$run" ]; do sleep 0.5; done # as where unshare was killed before its --kill-child held
}

# Becomes the process that all of a host's are under: exec keeps the pid and the start that are written down here.
begin() {
	local name=$1
	shift
	note processes "$$ $(start_of $$)"
	exec ip netns exec "$name" unshare --pid --fork --mount --mount-proc --uts --kill-child \
		"$BASH" "$0" first "$folder" "$@"
}

up() {
	local count=$1 venv=$2 run="run-$$-$RANDOM" network identity name host address
	[ ! -e "$folder/made" ] || { echo "$folder has hosts already, or what is left of some: hosts.sh down" >&2; exit 1; }
	mkdir -p "$folder/made"
	: >"$folder/made/$run"
	chmod 700 "$folder"
	trap 'down; exit 1' ERR INT TERM
	network=$(free_network)
	identity=$(echo "$folder" | cksum | cut -d' ' -f1) # so that two sets have different names
	[ -f "$folder/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
	[ -d /tmp/ray ] || { note folders /tmp/ray; mkdir -m 777 /tmp/ray; } # where each host's own is mounted

	note links "tk$identity"
	ip link add "tk$identity" type bridge
	ip address add "$network.1/24" dev "tk$identity"
	ip link set "tk$identity" up
	: >"$folder/addresses"
	for number in $(seq "$count"); do
		name="tk$identity-$number" host="$folder/host$number" address="$network.$((number + 1))"
		mkdir -p "$host/home/tunekit/env" "$host/ray"
		rm -rf "$host/ray/"*
		awk -F: -v OFS=: -v home="$host/home" '$3 == 0 {$6 = home; $7 = "/bin/bash"} {print}' /etc/passwd >"$host/passwd"
		awk -F: -v OFS=: '{$2 = "*"; print}' /etc/shadow >"$host/shadow" # no passwords; but sshd takes ! for locked
		[ -f "$host/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$host/host_key"

		note namespaces "$name"
		ip netns add "$name"
		note links "v$identity$number"
		ip link add "v$identity$number" type veth peer name eth0 netns "$name"
		ip link set "v$identity$number" master "tk$identity" up
		ip -n "$name" address add "$address/24" dev eth0
		ip -n "$name" link set lo up
		ip -n "$name" link set eth0 up
		ip -n "$name" route add default dev eth0 # Ray asks it for its own address; what is sent there reaches nobody
		setsid "$BASH" "$0" begin "$folder" "$name" "$run" "$host" "$address" "$venv" </dev/null >"$host/log" 2>&1 &
		echo "$name $address" >>"$folder/addresses"
	done
	while read -r _ address; do # until every sshd answers
		for attempt in $(seq 100); do
			(exec 3<>"/dev/tcp/$address/22") 2>/dev/null && break
			[ "$attempt" -lt 100 ] || { echo "no sshd at $address: see $folder" >&2; false; }
			sleep 0.1
		done
	done <"$folder/addresses"
}

case $command in
up) up "${3:-2}" "${4:-}" ;;
down) down ;;
begin) begin "${@:3}" ;;
first) first_process "${@:3}" ;;
*) echo "hosts.sh up FOLDER COUNT, or hosts.sh down FOLDER" >&2; exit 2 ;;
esac
