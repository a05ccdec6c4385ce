#!/bin/bash
# Real hosts on this machine: hosts.sh up N FOLDER | start I FOLDER | kill I FOLDER | down FOLDER
#
# Each has its own PID 1 (systemd), journal, sshd, network and control groups; its root is an
# overlay of this machine's, kept in memory. A bridge joins them: this machine is 10.177.77.1,
# host I is 10.177.77.(10+I). FOLDER/id.pub may log in as root and as ops; ops may use sudo.
set -eu
act=$1
net=10.177.77 bridge=kdbr
case $act in
  boot | start | kill) i=$2 top=$3 ;;
  up) n=$2 top=$3 ;;
  down) top=$2 ;;
esac

boot() { # inside its namespaces
  state=$top/h$i root=$top/h$i/root
  mount --make-rprivate /
  mkdir -p "$state/fs/upper" "$state/fs/work" "$root"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$state/fs/upper,workdir=$state/fs/work" "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r name major minor <<<"$node"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s /proc/self/fd/0 "$root/dev/stdin"
  ln -s /proc/self/fd/1 "$root/dev/stdout"
  ln -s /proc/self/fd/2 "$root/dev/stderr"
  [ -e "$root/etc/kd-host" ] || furnish
  hostname "h$i"
  ip link set lo up
  for _ in $(seq 100); do
    ip link show "kde$i" >/dev/null 2>&1 && break
    sleep .05
  done
  ip addr add "$net.$((10 + i))/24" dev "kde$i"
  ip link set "kde$i" up
  cd "$root"
  mkdir -p old
  pivot_root . old
  umount -l /old
  rmdir /old
  # Why: without it LoadCredential= gives an empty folder.
  mount --make-rshared /
  exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --show-status=no
}

furnish() { # once for each host
  echo "h$i" >"$root/etc/kd-host"
  echo "h$i" >"$root/etc/hostname"
  : >"$root/etc/fstab"
  rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/systemd/system/default.target"
  # Why: what this machine's root puts into its shell costs 120 ms a command.
  for file in ~root/.bashrc ~root/.profile; do rm -f "$root$file"; done
  ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
  for unit in systemd-timesyncd systemd-udevd systemd-udev-trigger systemd-resolved \
    systemd-networkd console-getty podman docker ssh; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
  done
  mkdir -p "$root/etc/kdssh"
  ssh-keygen -q -t ed25519 -N '' -f "$root/etc/kdssh/host_ed25519"
  cp "$top/id.pub" "$root/etc/kdssh/authorized_keys"
  cat >"$root/etc/kdssh/sshd_config" <<'END'
Port 22
HostKey /etc/kdssh/host_ed25519
AuthorizedKeysFile /etc/kdssh/authorized_keys
UsePAM yes
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
PidFile none
MaxStartups 100
MaxSessions 100
END
  cat >"$root/etc/systemd/system/kdsshd.service" <<'END'
[Service]
RuntimeDirectory=sshd
ExecStart=/usr/sbin/sshd -D -f /etc/kdssh/sshd_config
Type=notify
Restart=always
END
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -s ../kdsshd.service "$root/etc/systemd/system/multi-user.target.wants/"
  chroot "$root" useradd --create-home --shell /bin/bash ops
  chroot "$root" useradd --create-home --shell /bin/bash asks
  chroot "$root" useradd --create-home --shell /bin/bash plain
  rm -f "$root"/home/*/.bashrc
  echo 'asks:open sesame 42' | chroot "$root" chpasswd
  printf 'ops ALL=(ALL) NOPASSWD: ALL\nasks ALL=(ALL) ALL\n' >"$root/etc/sudoers.d/kd"
  chmod 440 "$root/etc/sudoers.d/kd"
}

empty() { # the control group $1 and all below have no process and are gone
  [ -d "$1" ] || return 0
  echo 1 >"$1/cgroup.kill"
  for _ in $(seq 100); do
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null && return 0
    sleep .02
  done
  echo "processes are left in $1" >&2
  return 1
}

start() {
  mkdir -p "$top/h$i"
  # Why: in a group that hosts share, each PID 1 sees, waits for and removes what is another's.
  empty "$top/cgroup/kd-h$i"
  mkdir "$top/cgroup/kd-h$i"
  # shellcheck disable=SC2016  # the inner shell expands it: its own process joins the group
  setsid sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$top/cgroup/kd-h$i" \
    unshare --pid --fork --mount --uts --ipc --net --cgroup "$0" boot "$i" "$top" \
    >"$top/h$i/boot.log" 2>&1 </dev/null &
  outer=$!
  pid=
  for _ in $(seq 200); do
    pid=$(pgrep -P "$outer" | head -1) || true
    [ -n "$pid" ] && break
    sleep .02
  done
  echo "$pid" >"$top/h$i/init"
  ip link del "kdv$i" 2>/dev/null || true
  ip link add "kdv$i" type veth peer name "kde$i"
  ip link set "kde$i" netns "$pid"
  ip link set "kdv$i" master "$bridge" up
  ip neigh flush dev "$bridge"
}

case $act in
  boot) boot ;;
  start) start ;;
  up)
    mountpoint -q "$top" || {
      mkdir -p "$top"
      cp "$top/id.pub" "/tmp/kd-id.$$"
      mount -t tmpfs -o size=6g,mode=755 tmpfs "$top"
      mv "/tmp/kd-id.$$" "$top/id.pub"
      mkdir "$top/cgroup"
      mount -t cgroup2 cgroup2 "$top/cgroup"
    }
    ip link show "$bridge" >/dev/null 2>&1 || {
      ip link add "$bridge" type bridge
      ip addr add "$net.1/24" dev "$bridge"
      ip link set "$bridge" up
    }
    for i in $(seq "$n"); do start; done
    ;;
  kill)
    kill -9 "$(cat "$top/h$i/init")" || true
    ;;
  down)
    for init in "$top"/h*/init; do kill -9 "$(cat "$init")" 2>/dev/null || true; done
    for group in "$top"/cgroup/kd-h*; do empty "$group"; done
    umount "$top/cgroup" 2>/dev/null || true
    ip link del "$bridge" 2>/dev/null || true
    for _ in $(seq 30); do
      umount "$top" 2>/dev/null && exit 0
      sleep .1
    done
    umount -l "$top"
    ;;
esac
