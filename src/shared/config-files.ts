import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { parse } from 'yaml';

/** The folder with package.json, whether the code runs from `src` or from `dist`. */
export const PACKAGE_ROOT = findPackageRoot(import.meta.dirname);

/** The reviewed files that come with the product. */
export const BUILT_IN_CONFIG = join(PACKAGE_ROOT, 'config');

/**
 * Reads a reviewed YAML file of a configuration folder and checks it against its schema.
 *
 * @param folder a file that is not there is taken from the built-in ones
 * @throws {Error} naming file, path and fault
 */
export function readConfigFile<T extends TSchema>(name: string, schema: T, folder = BUILT_IN_CONFIG): Static<T> {
  const own = join(folder, name);
  const value: unknown = parse(readFileSync(existsSync(own) ? own : join(BUILT_IN_CONFIG, name), 'utf8'), { uniqueKeys: true });
  const validator = Compile(schema);
  if (validator.Check(value)) return value as Static<T>;
  const [fault] = validator.Errors(value);
  throw new Error(`config/${name}: ${fault === undefined ? 'invalid' : `${fault.instancePath || '/'} ${fault.message}`}`);
}

function findPackageRoot(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder;
  const parent = dirname(folder);
  if (parent === folder) throw new Error('package.json not found above the program');
  return findPackageRoot(parent);
}
