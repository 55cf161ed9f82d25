import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, lstat, mkdir, mkdtemp, readlink, realpath, rmdir, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { isErrno } from './errno.ts';

const run = promisify(execFile);
const SYSTEM_USER = 'postgres';

/** Nothing of our own environment reaches PostgreSQL: it may hold keys, and PG* variables would change what it does. */
export const SERVER_ENV = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', TZ: 'UTC' };

/** The user PostgreSQL runs as; undefined means our own. Its fields go straight into the options of `spawn`. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** PostgreSQL refuses to run as root, so as root it gets the system user `postgres`, made when missing. */
export async function serverAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const existing = await lookUp();
  if (existing !== undefined) return existing;
  const failure = await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', SYSTEM_USER], {
    env: SERVER_ENV,
  }).then(
    () => undefined,
    (error: unknown) => error, // perhaps another process was faster: look again before complaining
  );
  const made = await lookUp();
  if (made !== undefined) return made;
  throw new Error(
    `PostgreSQL does not run as root, and the user "${SYSTEM_USER}" could not be made. Run as another user, or set DATABASE_URL.`,
    { cause: failure },
  );
}

async function lookUp(): Promise<Account | undefined> {
  try {
    const [uid, gid] = await Promise.all(['-u', '-g'].map(async (flag) => Number((await run('id', [flag, SYSTEM_USER], { env: SERVER_ENV })).stdout)));
    return uid === undefined || gid === undefined ? undefined : { uid, gid };
  } catch {
    return undefined;
  }
}

/** Whether this user can enter the folder. The kernel is asked, so access lists and mount options count too. */
export async function canEnter(account: Account | undefined, folder: string): Promise<boolean> {
  return succeeds('test', ['-x', folder], account);
}

/** Whether the command, run as this user, ends with status 0. */
export async function succeeds(command: string, args: readonly string[], account: Account | undefined): Promise<boolean> {
  return run(command, args, { ...account, cwd: '/', env: SERVER_ENV }).then(
    () => true,
    () => false,
  );
}

/** A temporary folder this user can enter: `TMPDIR` may lie in a private place. */
export async function sharedTemporaryFolder(account: Account | undefined): Promise<string> {
  for (const folder of [tmpdir(), '/tmp', '/var/tmp']) {
    if (await canEnter(account, folder)) return realpath(folder);
  }
  throw new Error(`The user "${SYSTEM_USER}" can enter no temporary folder, so PostgreSQL cannot be started as root. Set DATABASE_URL.`);
}

/**
 * Makes the folder for the cluster, the lock and the password, and says where it really is.
 *
 * As root below a folder that the server's user cannot enter, it goes to a temporary folder, and the wanted place becomes a
 * link to it. The link alone leads there: who removes it (`rm -rf .novix`) starts with an empty cluster, as without the detour.
 *
 * @param wanted absolute
 */
export async function placeHome(wanted: string, account: Account | undefined): Promise<string> {
  if (account === undefined) {
    await mkdir(wanted, { recursive: true, mode: 0o700 });
    return realpath(wanted);
  }
  await mkdir(dirname(wanted), { recursive: true });
  const current = await lstat(wanted).catch(() => undefined);
  if (current?.isSymbolicLink() === true) return enterable(await followLink(wanted), account);
  if (await canEnter(account, dirname(wanted))) {
    await mkdir(wanted, { recursive: true });
    return enterable(await realpath(wanted), account);
  }
  if (current !== undefined) await rmdir(wanted).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return; // another starter has just put the link there
    throw new Error(unreachable(wanted), { cause: error });
  });
  return enterable(await relocate(wanted, account), account);
}

async function relocate(wanted: string, account: Account): Promise<string> {
  const key = createHash('sha256').update(wanted).digest('hex').slice(0, 12);
  const folder = await mkdtemp(join(await sharedTemporaryFolder(account), `novix-postgres-${key}-`));
  try {
    await symlink(folder, wanted);
    return folder;
  } catch (error) {
    await rmdir(folder);
    if (!isErrno(error, 'EEXIST')) throw error;
    return followLink(wanted);
  }
}

/** The temporary folder may be gone after a reboot. It is made again where it was, which two starters may do at once. */
async function followLink(wanted: string): Promise<string> {
  const folder = await readlink(wanted);
  await mkdir(folder, { recursive: true });
  const real = await lstat(folder);
  if (!real.isDirectory() || real.uid !== process.getuid?.()) throw new Error(`${folder}, to which ${wanted} leads, is not ours. Remove the link.`);
  return realpath(folder);
}

async function enterable(home: string, account: Account): Promise<string> {
  await chmod(home, 0o755); // the cluster in it is the server's alone, the password file ours alone
  if (!(await canEnter(account, home))) throw new Error(unreachable(home));
  return home;
}

function unreachable(folder: string): string {
  return `The user "${SYSTEM_USER}", as which PostgreSQL runs under root, cannot reach ${folder}. Make its parent folders enterable (chmod o+x), choose another NOVIX_DATA_DIR, or set DATABASE_URL.`;
}
