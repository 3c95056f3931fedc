# Blocks a user from the instance's metadata, and so from its role's credentials. Can be repeated.
#
#   UID   the user
#
# job.sh tests it as that user before a job starts.

address=169.254.169.254
[ "$(id -u)" = 0 ] || exit 0 # a simulated host without root has one user and no such address

if command -v iptables >/dev/null; then
    rule="OUTPUT -d $address/32 -m owner --uid-owner $1 -j REJECT"
    iptables -w -C $rule 2>/dev/null || iptables -w -I $rule
fi
if command -v nft >/dev/null; then
    nft -f - <<END
table ip gpu_offload
delete table ip gpu_offload
table ip gpu_offload {
    chain output {
        type filter hook output priority 0;
        ip daddr $address meta skuid $1 reject
    }
}
END
fi
# Needs no packet filter, which Amazon Linux does not include.
if command -v ip >/dev/null; then
    ip rule del priority 1 2>/dev/null
    ip rule add priority 1 uidrange "$1-$1" to $address/32 prohibit
fi
exit 0
