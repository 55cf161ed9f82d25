import type { EmulatorScript } from './emulated-script.ts';

/** A frame that carries output, with those that belong to it. */
export interface ContentFrame {
  readonly text: string;
  /** How many frames the text is. */
  readonly frames: number;
  readonly tokens: number;
  /** The step of the generation with which it is complete. */
  readonly step: number;
}

/** How an endpoint puts one answer into frames. */
export interface FrameSource {
  /** Sent with the headers, before there is any output. */
  openingFrames(): readonly string[];
  contentFrames(): Iterable<ContentFrame>;
  /** All that follows the output, but for [DONE]. */
  closingFrames(): string[];
  /** In place of what would come next. @param framesSent how many frames there are before it */
  errorFrame(framesSent: number): string;
}

export function doneFrame(frameEnd: string): string {
  return `data: [DONE]${frameEnd}`;
}

/** The frames with pings in between, if the script asks for them. */
export function withPings(frames: Iterable<ContentFrame>, script: EmulatorScript, frameEnd: string): Iterable<ContentFrame> {
  const { ping_every: every } = script;
  if (every === undefined || every === 0) return frames;
  const lineEnd = frameEnd.slice(frameEnd.length / 2);
  const ping = script.ping_data ? `event: ping${lineEnd}data: {"type":"ping"}${frameEnd}` : `event: ping${frameEnd}`;
  return function* () {
    let count = 0;
    for (const frame of frames) {
      count += 1;
      yield count % every === 0 ? { ...frame, text: frame.text + ping } : frame;
    }
  }();
}
