import type { EmulatedAnswer } from './emulated-answer.ts';
import { sendWhole, type AnswerBody } from './emulated-body.ts';
import type { EmulatedCall, EndState } from './emulated-calls.ts';
import { doneFrame, withPings, type FrameSource } from './emulated-frames.ts';
import type { Caller, Schedule } from './emulated-pace.ts';
import { frameEndOf, interruptionOf, type EmulatorScript, type Interruption } from './emulated-script.ts';

/** An answer on its way to the caller. */
export interface Delivery {
  readonly script: EmulatorScript;
  readonly answer: EmulatedAnswer;
  readonly schedule: Schedule;
  /** Its counts follow what has been generated. */
  readonly call: EmulatedCall;
  readonly caller: Caller;
  readonly body: AnswerBody;
  /** Of `performance.now()`. */
  readonly startedMs: number;
  /** Bills the call. Comes before the last byte, so that whoever has read the answer finds it in the books. */
  readonly close: (state: EndState) => void;
}

/** Frames that are due at the same time leave together, in writes of about this size. */
const WRITE_CHARACTERS = 64 * 1024;

export async function deliverPlain(delivery: Delivery, textOf: () => string): Promise<void> {
  const { script, answer, schedule, call, caller, body, startedMs } = delivery;
  if (script.stall_before_headers) return stallInSilence(delivery);
  await untilDue(delivery, schedule.lastStepMs());
  if (caller.gone) {
    Object.assign(call, schedule.generatedBy(performance.now() - startedMs));
    return delivery.close('aborted');
  }
  call.reasoningTokens = answer.reasoningTokens;
  call.completionTokens = answer.completionTokens;
  const text = textOf();
  const interruption = interruptionOf(script);
  if (interruption !== undefined && interruption.kind !== 'error') return breakPlainBody(delivery, interruption, text);
  if (overflows(body, text)) return breakPlainBody(delivery, { kind: 'cut', afterFrames: 0 }, text);
  delivery.close('completed');
  await sendWhole(body, 200, 'application/json', text);
}

export async function deliverStream(delivery: Delivery, source: FrameSource): Promise<void> {
  const { script, answer, schedule, call, caller, body, startedMs } = delivery;
  if (script.stall_before_headers) return stallInSilence(delivery);
  body.begin(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  if (schedule.stepMs(0) > 0) body.flushHeaders();

  const frameEnd = frameEndOf(script);
  const interruption = interruptionOf(script);
  const writeCharacters = body.framewise ? 1 : WRITE_CHARACTERS;
  const opening = source.openingFrames();
  call.framesSent = opening.length;
  let unsent = opening.join('');
  let contentFrames = 0;
  for (const frame of withPings(source.contentFrames(), script, frameEnd)) {
    if (contentFrames === interruption?.afterFrames) return interrupt(delivery, interruption, source, unsent, frame.text);
    const dueMs = startedMs + schedule.stepMs(frame.step);
    if (dueMs > performance.now() || unsent.length >= writeCharacters) {
      if (unsent !== '') {
        if (overflows(body, unsent)) return cutWithin(delivery, unsent);
        const pressed = body.write(unsent);
        if (pressed !== undefined) await pressed;
        unsent = '';
      }
      await untilDue(delivery, schedule.stepMs(frame.step));
      if (caller.gone) {
        if (contentFrames === 0) Object.assign(call, schedule.generatedBy(performance.now() - startedMs));
        return delivery.close('aborted');
      }
    }
    unsent += frame.text;
    contentFrames += 1;
    call.framesSent += frame.frames;
    call.completionTokens += frame.tokens;
    call.reasoningTokens = answer.reasoningTokens;
  }

  const closing = source.closingFrames();
  if (interruption !== undefined) return interrupt(delivery, interruption, source, unsent, closing[0]!);
  if (!script.no_done) closing.push(doneFrame(frameEnd));
  call.framesSent += closing.length;
  const rest = unsent + closing.join('');
  if (overflows(body, rest)) return cutWithin(delivery, rest);
  delivery.close('completed');
  body.end(rest);
}

/** Returns at once, without even a microtask, when the time has come already. */
function untilDue({ caller, startedMs }: Delivery, stepMs: number): Promise<void> | undefined {
  const dueMs = startedMs + stepMs;
  return dueMs > performance.now() ? caller.until(dueMs) : undefined;
}

function overflows({ roomBytes }: AnswerBody, text: string): boolean {
  return roomBytes !== Infinity && Buffer.byteLength(text) > roomBytes;
}

/** The answer never begins; the model has been thinking all the while. */
async function stallInSilence({ schedule, call, caller, startedMs, close }: Delivery): Promise<void> {
  await caller.untilGone();
  call.reasoningTokens = schedule.generatedBy(performance.now() - startedMs).reasoningTokens;
  close('aborted');
}

async function breakPlainBody({ caller, body, close }: Delivery, { kind }: Interruption, text: string): Promise<void> {
  body.begin(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  const part = kind === 'cut' && overflows(body, text) ? text : text.slice(0, text.length / 2);
  if (kind === 'cut') {
    close('failed');
    return body.breakOff(part);
  }
  await body.write(part);
  await caller.untilGone();
  close('aborted');
}

async function interrupt(delivery: Delivery, { kind }: Interruption, source: FrameSource, unsent: string, nextFrame: string): Promise<void> {
  const { script, call, caller, body } = delivery;
  if (kind === 'error') {
    const error = source.errorFrame(call.framesSent);
    call.framesSent += 1;
    delivery.close('failed');
    body.end(unsent + error);
  } else if (kind === 'cut') {
    delivery.close('failed');
    await body.breakOff(unsent + (script.cut_mid_frame ? nextFrame.slice(0, nextFrame.length / 2) : ''));
  } else {
    if (unsent === '') body.flushHeaders();
    else await body.write(unsent);
    await caller.untilGone();
    delivery.close('aborted');
  }
}

/** The connection breaks at a byte of this text, whose frames have all been counted as sent. */
function cutWithin({ script, call, body, close }: Delivery, text: string): Promise<void> {
  const frameEnd = frameEndOf(script);
  const framesIn = (part: string) => part.split(frameEnd).length - 1;
  call.framesSent += framesIn(Buffer.from(text).subarray(0, body.roomBytes).toString()) - framesIn(text);
  close('failed');
  return body.breakOff(text);
}
