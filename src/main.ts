import { enableCompileCache } from 'node:module';
import { join } from 'node:path';

// Half of a start is compiling what was compiled the last time. Beside the packages, where only who installed them can write, and not in a
// temporary folder that others share. Where it cannot be written, Node goes on without.
enableCompileCache(join(import.meta.dirname, '../../node_modules/.cache/compile'));

const { main, reportFailure } = await import('./start.ts');
try {
  await main();
} catch (error) {
  reportFailure(error);
  process.exit(1);
}
