import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ExportEvent } from './export-event.ts';
import { fileInside, pathOfFileUrl } from './file-place.ts';
import type { Sender, SenderContext } from './sender.ts';
import { ACKNOWLEDGED, retry, type Outcome, type SinkSettings } from './sink.ts';

const NEWLINE = 0x0a;
const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants;

/** Appends JSON lines to a file, which others may move away at any time: it is opened anew for each batch. */
export class FileSender implements Sender {
  constructor(
    private readonly sink: SinkSettings,
    private readonly context: SenderContext,
  ) {}

  /** Not given up half way: what is on the disk cannot be taken back. */
  async send(events: readonly ExportEvent[]): Promise<Outcome> {
    const path = pathOfFileUrl(this.sink.url);
    const place = path === undefined ? undefined : await fileInside(this.context.siemDir, path);
    if (place === undefined) return retry('the file is not inside NOVIX_SIEM_DIR, or its folder is gone', { slow: true });
    // Neither through a link, nor waiting for whoever reads from a pipe.
    const file = await open(place, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
    try {
      const stat = await file.stat();
      if (!stat.isFile()) return retry('the file is no ordinary file', { slow: true });
      const lines = events.flatMap((event) => [lineOf(event), Buffer.of(NEWLINE)]);
      await file.appendFile(Buffer.concat((await endsTorn(file, stat.size)) ? [Buffer.of(NEWLINE), ...lines] : lines));
      await file.datasync();
      if (stat.size === 0) await syncFolder(dirname(place)); // a file whose name is not on the disk is lost as a whole
      return ACKNOWLEDGED;
    } finally {
      await file.close();
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** The bytes of the leaf. Line breaks can stand between the tokens of JSON only, where a space means the same. */
function lineOf({ body, text }: ExportEvent): Buffer {
  return /[\r\n]/.test(text) ? Buffer.from(text.replaceAll(/[\r\n]/g, ' ')) : body;
}

/** Whether a crash cut its last line off: the next event must not continue it. */
async function endsTorn(file: FileHandle, size: number): Promise<boolean> {
  if (size === 0) return false;
  const { buffer, bytesRead } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
  return bytesRead === 1 && buffer[0] !== NEWLINE;
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
