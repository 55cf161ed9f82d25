import { randomUUID } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { isErrno } from './errno.ts';
import { isLive, ownIdentity } from './live-process.ts';

const POLL_MS = 50;

/** The lock stayed with a live process for the whole time we were ready to wait. */
export class LockTimeoutError extends Error {}

/**
 * Does `work` while holding `file`, which one process (and one caller in it) has at a time. A lock whose process has died is broken.
 *
 * @throws {LockTimeoutError} when it is not ours after `waitMs`
 * @throws ENOENT when the folder of the lock does not exist
 */
export async function withFileLock<T>(file: string, waitMs: number, work: () => Promise<T>): Promise<T> {
  const claim = `${ownIdentity()} ${randomUUID()}`;
  await acquire(file, claim, Date.now() + waitMs);
  try {
    return await work();
  } finally {
    if ((await contentOf(file)) === claim) await rm(file, { force: true });
  }
}

async function acquire(file: string, claim: string, deadlineMs: number): Promise<void> {
  while (!(await createWhole(file, claim))) {
    const holder = await contentOf(file);
    if (holder === undefined || (!isHeld(holder) && (await breakStale(file, holder)))) continue;
    if (Date.now() > deadlineMs) {
      throw new LockTimeoutError(`${file} is held by process ${Number.parseInt(holder, 10)}; if that is no Novix gateway, remove the file`);
    }
    await sleep(POLL_MS);
  }
}

/** Creates the file with its content in one step (link fails when it exists), so nobody ever reads a lock without its owner. */
async function createWhole(file: string, content: string): Promise<boolean> {
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, content, { mode: 0o600 });
  try {
    await link(draft, file);
    return true;
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

function isHeld(claim: string): boolean {
  return isLive(claim.slice(0, claim.lastIndexOf(' ')));
}

/**
 * Removes the lock of a dead holder. Two waiters may see it at once, and the slower must not remove the lock that the faster
 * has taken meanwhile: so only who made the marker named after this holder may remove, and only after looking again.
 */
async function breakStale(file: string, holder: string): Promise<boolean> {
  const marker = `${file}.broken-${holder.slice(holder.lastIndexOf(' ') + 1)}`;
  try {
    await writeFile(marker, '', { flag: 'wx' });
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  }
  try {
    if ((await contentOf(file)) === holder) await rm(file, { force: true });
  } finally {
    await rm(marker, { force: true });
  }
  return true;
}

async function contentOf(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
