/** CPU time that a piece of work takes in this process, in milliseconds: unlike the clock's, it does not depend on what else the machine does. */
export function cpuMs(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}
