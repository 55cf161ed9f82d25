import nodeModule from 'node:module';
import { join } from 'node:path';

const NODE_MAJOR_LEAST = 24;

/**
 * Runs a program: on the right Node, with what was compiled the last time, and with one clear line per fault where it fails. Imports nothing but what
 * every Node has, so that on an old one the line comes before the first module that does not load there.
 */
export async function enter(program: () => Promise<void>): Promise<void> {
  try {
    assertNode();
    // Half of a start is compiling. Beside the packages, where only who installed them can write, and not in a temporary folder that others share.
    // Where it cannot be written, Node goes on without.
    nodeModule.enableCompileCache(join(import.meta.dirname, '../../node_modules/.cache/compile'));
    await program();
  } catch (error) {
    const { faults, message } = error as { faults?: readonly string[]; message?: string };
    for (const line of faults ?? [message ?? String(error)]) process.stderr.write(`novix: ${line.replaceAll(/\s*\n\s*/g, ' ')}\n`);
    process.exit(1);
  }
}

/** On Linux x64 the packages bring the right Node; elsewhere it is the machine's own. */
function assertNode(): void {
  if (Number(process.versions.node.split('.')[0]) < NODE_MAJOR_LEAST) {
    throw new Error(`Node ${NODE_MAJOR_LEAST} or later is needed, and this is ${process.versions.node}; use npm or npx, which find the one that npm ci brings, or install it`);
  }
}
