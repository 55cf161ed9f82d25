import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { appendFile, mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { eventually } from '../support/harness.ts';
import { eventText, eventTexts, NASTY, openBench, type ExportBench } from './export-bench.ts';

// JSON lines on a disk: once the cursor has moved, they are there.

let bench: ExportBench;
let path: string;
beforeEach(async () => {
  bench = await openBench();
  path = join(bench.siemDir, 'audit.jsonl');
  await mkdir(bench.siemDir);
});
afterEach(() => bench.close());

const sink = (file = path): Promise<string> => bench.sink({ name: 'file', type: 'file', url: pathToFileURL(file).href, cursor: 0 });
const lines = async (file = path): Promise<string[]> => {
  const text = await readFile(file, 'utf8');
  expect(text.endsWith('\n')).toBe(true);
  return text.slice(0, -1).split('\n');
};

it('appends each event as one line, whatever is in it', async () => {
  const texts = NASTY.map((value) => eventText(value));
  const pretty = '{\n "time": 1,\r\n "text": "a\\nb"\n}';
  await bench.append([...texts, pretty]);
  const id = await sink();
  bench.exporter();
  await bench.reaches(id, texts.length + 1);
  const written = await lines();
  expect(written.slice(0, -1)).toEqual(texts);
  expect(written.slice(0, -1).map((line) => (JSON.parse(line) as { api: { operation: string } }).api.operation)).toEqual([...NASTY]);
  expect(JSON.parse(written.at(-1)!)).toEqual({ time: 1, text: 'a\nb' });
  expect((await stat(path)).mode & 0o777).toBe(0o600);
});

it('ends a line that a crash has cut off before it goes on', async () => {
  const texts = eventTexts(3);
  await writeFile(path, `${texts[0]!}\n${texts[1]!.slice(0, 20)}`); // the crash came before the cursor moved
  await bench.append(texts);
  const id = await sink();
  bench.exporter();
  await bench.reaches(id, 3);
  expect(await lines()).toEqual([texts[0], texts[1]!.slice(0, 20), ...texts]);
  await bench.append(texts);
  await bench.reaches(id, 6);
  expect(await lines()).toEqual([texts[0], texts[1]!.slice(0, 20), ...texts, ...texts]);
});

it('goes on in a new file where the old one was moved away', async () => {
  const id = await sink();
  bench.exporter();
  const [first, second] = [eventTexts(2, 'first'), eventTexts(2, 'second')];
  await bench.append(first);
  await bench.reaches(id, 2);
  await rename(path, `${path}.1`);
  await bench.append(second);
  await bench.reaches(id, 4);
  expect([await lines(`${path}.1`), await lines()]).toEqual([first, second]);
});

it('makes NOVIX_SIEM_DIR where there is none', async () => {
  await rm(bench.siemDir, { recursive: true });
  await bench.append(eventTexts(1));
  const id = await sink();
  bench.exporter();
  await bench.reaches(id, 1);
  expect((await stat(bench.siemDir)).mode & 0o777).toBe(0o700);
});

describe('writes nothing', () => {
  it('through a link that was put there after the sink was made', async () => {
    const victim = join(dirname(bench.siemDir), 'victim');
    await writeFile(victim, 'as it was');
    await symlink(victim, path);
    await bench.append(eventTexts(1));
    const id = await sink();
    bench.exporter();
    await eventually(async () => (await bench.state(id)).lastError?.includes('ELOOP'));
    expect(await readFile(victim, 'utf8')).toBe('as it was');
    await rm(path);
    await bench.reaches(id, 1); // and goes on when it is gone
  });

  it('into a folder that is a link out of NOVIX_SIEM_DIR', async () => {
    const outside = join(dirname(bench.siemDir), 'outside');
    await mkdir(outside);
    await symlink(outside, join(bench.siemDir, 'inside'));
    await bench.append(eventTexts(1));
    const id = await sink(join(bench.siemDir, 'inside', 'audit.jsonl'));
    bench.exporter();
    await eventually(async () => (await bench.state(id)).lastError?.includes('not inside NOVIX_SIEM_DIR'));
    expect(await stat(join(outside, 'audit.jsonl')).catch((error: NodeJS.ErrnoException) => error.code)).toBe('ENOENT');
  });

  it('to what is no ordinary file', async () => {
    await mkdir(path);
    await bench.append(eventTexts(1));
    const id = await sink();
    bench.exporter();
    await eventually(async () => /EISDIR|no ordinary file/.test((await bench.state(id)).lastError ?? ''));
    expect(await bench.state(id)).toMatchObject({ cursor: 0, parked: 0 });
  });
});

it('keeps what others have written', async () => {
  await appendFile(path, 'of someone else\n');
  const texts = eventTexts(1);
  await bench.append(texts);
  const id = await sink();
  bench.exporter();
  await bench.reaches(id, 1);
  expect(await lines()).toEqual(['of someone else', ...texts]);
});
