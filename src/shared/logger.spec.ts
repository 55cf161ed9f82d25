import { describe, expect, it } from '@jest/globals';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PACKAGE_ROOT } from './config-files.ts';

// What a process really writes: the logger as it is built (`npm run build`), on the standard output of a process of its own.

const AWKWARD = 'canary"with\\quotes\nand lines';

async function logOf(lines: string): Promise<Record<string, unknown>[]> {
  const folder = await mkdtemp(join(tmpdir(), 'secrets-logger-'));
  await writeFile(join(folder, 'program.mjs'), `
    import { createLogger, hideFromLog } from ${JSON.stringify(join(PACKAGE_ROOT, 'dist/src/shared/logger.js'))};
    const awkward = ${JSON.stringify(AWKWARD)};
    const logger = createLogger('trace');
    ${lines}
    logger.flush(() => process.exit(0));
  `);
  const child = spawn(process.execPath, [join(folder, 'program.mjs')], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (part: Buffer) => {
    output += part.toString();
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  await rm(folder, { recursive: true });
  expect(code).toBe(0);
  return output.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>); // each one is whole JSON
}

describe('the log', () => {
  it('holds no secret that is known, in whichever field, message, error or stack it stands', async () => {
    const lines = await logOf(`
      hideFromLog('xai-canary-5d2b8'); hideFromLog(awkward);
      logger.info({ url: 'https://x/?key=xai-canary-5d2b8', deep: { list: ['xai-canary-5d2b8', awkward] } }, 'message with xai-canary-5d2b8');
      logger.error({ err: new Error('upstream said ' + awkward, { cause: new Error('xai-canary-5d2b8') }) }, awkward);
      logger.child({ key: 'xai-canary-5d2b8' }).warn({ body: JSON.stringify({ password: awkward }) }, 'quoted');
    `);
    expect(lines).toHaveLength(3);
    const text = JSON.stringify(lines);
    expect(text.match(/\[redacted\]/g)!.length).toBeGreaterThanOrEqual(10);
    for (const part of ['5d2b8', 'canary', 'with\\\\', 'quotes']) expect([part, text.includes(part)]).toEqual([part, false]);
    const { err } = lines[1] as { err: { message: string; stack: string; cause: { message: string } } };
    expect(err).toMatchObject({ message: 'upstream said [redacted]', stack: expect.stringMatching(/^Error: upstream said \[redacted\]\n {4}at /), cause: { message: '[redacted]' } });
    expect(lines[2]).toMatchObject({ key: '[redacted]', body: '{"password":"[redacted]"}', msg: 'quoted' });
  });

  it('holds what is no secret as it is, in the order of the calls, up to the last line before the exit', async () => {
    const lines = await logOf("hideFromLog('short'); for (let n = 0; n < 500; n++) logger.info({ n }, 'short line');");
    expect(lines.map(({ n, msg }) => [n, msg])).toEqual(Array.from({ length: 500 }, (_, n) => [n, 'short line']));
  });
});
