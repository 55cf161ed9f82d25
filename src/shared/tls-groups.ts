/** Groups of key exchange that a quantum computer does not open. */
const HYBRID_GROUPS = ['X25519MLKEM768', 'SecP256r1MLKEM768', 'SecP384r1MLKEM1024'];

/** Whether no connection can have come about by a group that is not hybrid. */
export function onlyHybrid(groups: readonly string[]): boolean {
  return groups.length > 0 && groups.every((group) => HYBRID_GROUPS.includes(group));
}
