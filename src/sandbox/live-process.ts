import { readFileSync } from 'node:fs';

/**
 * Who a pid is now, as `PID STARTTIME`: a pid that was given to another process later has another start time.
 *
 * @returns undefined when there is no such process or only its zombie (a container whose pid 1 reaps nothing keeps those)
 */
export function processIdentity(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The second field is the command in brackets and may hold anything; state is field 3, start time field 22.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${pid} ${fields[19]}`;
}

/** Whether the very process that once had this identity still runs. */
export function isLive(identity: string): boolean {
  return processIdentity(Number.parseInt(identity, 10)) === identity;
}

/** Our own identity, for lock and pid files. */
export function ownIdentity(): string {
  return processIdentity(process.pid) ?? `${process.pid} unknown`;
}
