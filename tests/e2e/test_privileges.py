# test_privileges.py - who runs as whom on the host.
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from support import inside, pid_inside, vmm_of


def status_of(pid):
    lines = inside(f"cat /proc/{pid}/status").splitlines()
    return dict(line.split(":", 1) for line in lines)


def uids(pid):
    return {int(uid) for uid in status_of(pid)["Uid"].split()}


def test_brigd_is_not_root():
    brigd = pid_inside("brigd")
    assert 0 not in uids(brigd)
    assert int(status_of(brigd)["CapEff"], 16) == 0


def test_only_brig_spawn_is_root():
    assert uids(pid_inside("brig-spawn")) == {0}
    programs = inside(
        "cd /proc && grep -lE '^brig' [0-9]*/comm; true"
    ).split()
    roots = [
        name for name in (one.split("/")[0] for one in programs)
        if uids(name) == {0}
    ]
    names = {inside(f"cat /proc/{pid}/comm").strip() for pid in roots}
    assert names == {"brig-spawn"}


def test_each_monitor_has_a_uid_and_cgroup_of_its_own(sandbox, new_sandbox):
    first, second = vmm_of(sandbox), vmm_of(new_sandbox())
    assert uids(first) != uids(second)
    for pid in (first, second):
        (uid,) = uids(pid)
        assert 0x6B000000 <= uid < 0x6B000000 + 4096
        status = status_of(pid)
        assert int(status["CapEff"], 16) == 0
        assert status["Groups"].split() == []
    places = {inside(f"cat /proc/{pid}/cgroup") for pid in (first, second)}
    assert len(places) == 2


def test_the_key_is_its_owners_only(api):
    brigd = pid_inside("brigd")
    (owner,) = uids(brigd)
    arguments = inside(f"tr '\\0' '\\n' </proc/{brigd}/cmdline").split()
    path = arguments[arguments.index("--key-file") + 1]
    assert inside(f"stat -c '%a %u' {path}").split() == ["600", str(owner)]
    assert inside(f"cat {path}").strip() == api.key


def test_the_key_is_in_no_log_or_process_list(api):
    # written so that the line that searches does not find itself
    pattern = f"[{api.key[0]}]{api.key[1:]}"
    found = inside(
        f"grep -rls '{pattern}' /var/log/brig /proc/[0-9]*/cmdline; "
        "for d in $(grep -lx brig-vmm /proc/[0-9]*/comm); do "
        f"grep -ls '{pattern}' ${{d%/comm}}/environ; done; true"
    ).split()
    assert found == []
