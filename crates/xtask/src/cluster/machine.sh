# The first process of a machine of the cluster: a root of its own over the host's files, its own /proc, /sys,
# cgroups and BPF file system, then the machine's programs. $dir is the machine's folder, $state the cluster's,
# $groups says how the host mounts cgroups.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
trap : TERM INT HUP

mkdir -p "$dir/memory" "$dir/disk" "$dir/log"
# What is written below / stays in memory: an overlay cannot have its upper layer below its lower one.
mount -t tmpfs -o mode=755 tmpfs "$dir/memory"
mkdir "$dir/memory/upper" "$dir/memory/work" "$dir/memory/root"
mount -t overlay -o "lowerdir=/,upperdir=$dir/memory/upper,workdir=$dir/memory/work" overlay "$dir/memory/root"
cd "$dir/memory/root"
mkdir -p "./$state" ./var/lib/containerd ./old
mount --bind "$state" "./$state"
# containerd makes overlays itself, for which it needs a plain file system.
mount --bind "$dir/disk" ./var/lib/containerd
mount -t proc proc ./proc
mount -t sysfs sysfs ./sys
mount --rbind /dev ./dev
mount -t tmpfs -o mode=755 tmpfs ./run
case $groups in
unified)
    mount -t cgroup2 cgroup2 ./sys/fs/cgroup
    # A group with controllers for its children has no process of its own.
    mkdir -p ./sys/fs/cgroup/machine
    echo 1 > ./sys/fs/cgroup/machine/cgroup.procs
    for one in $(cat ./sys/fs/cgroup/cgroup.controllers); do
        echo "+$one" > ./sys/fs/cgroup/cgroup.subtree_control
    done
    ;;
*)
    mount -t tmpfs -o mode=755 tmpfs ./sys/fs/cgroup
    for one in $groups; do
        mkdir "./sys/fs/cgroup/${one%%:*}"
        case ${one#*:} in
        v2) mount -t cgroup2 cgroup2 "./sys/fs/cgroup/${one%%:*}" ;;
        *) mount -t cgroup -o "${one#*:}" cgroup "./sys/fs/cgroup/${one%%:*}" ;;
        esac
    done
    ;;
esac
mount -t bpf bpf ./sys/fs/bpf
pivot_root . ./old
cd /
umount -l /old
# Mounts of volumes have to reach the pods that ask for it.
mount --make-rshared /
mkdir -p /run/netns /etc/cni/net.d
hostname "$name"
# A name server of the host's is nowhere in here.
: > /etc/resolv.conf

# start NAME COMMAND...: in the background, with a log, and with a word in `ended` when it ends.
start() {
    program=$1
    shift
    { "$@" > "$dir/log/$program" 2>&1 < /dev/null || true; echo "$program has ended" >> "$dir/ended"; } &
}
# until_true COMMAND...: waits for success; the cluster's `up` has the deadline.
until_true() {
    until "$@" > /dev/null 2>&1; do sleep 0.1; done
}

ip link set lo up
