import { mkdir, realpath } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/** @returns the path of a `file:///…` URL, or undefined for what is none */
export function pathOfFileUrl(url: string): string | undefined {
  if (!/^file:\/\/\//i.test(url) || /[?#]/.test(url)) return undefined;
  try {
    const path = fileURLToPath(url);
    return /\p{Cc}/u.test(path) || path.endsWith('/') ? undefined : path;
  } catch {
    return undefined; // an encoded slash, among others
  }
}

/**
 * Where a file sink writes: with all links of its folder resolved, so that what was inside yesterday is not outside today. The file itself must be no link
 * either, which whoever opens it has to see to.
 *
 * @param siemDir made where there is none
 * @returns undefined for a place outside of it, or in a folder that there is not
 */
export async function fileInside(siemDir: string, path: string): Promise<string | undefined> {
  await mkdir(siemDir, { recursive: true, mode: 0o700 });
  const root = await realpath(siemDir);
  try {
    const folder = await realpath(dirname(resolve(path)));
    const inside = relative(root, folder);
    return inside === '..' || inside.startsWith(`..${sep}`) ? undefined : join(folder, basename(path));
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}
