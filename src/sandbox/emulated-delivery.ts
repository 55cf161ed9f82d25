import type { ServerResponse } from 'node:http';
import type { EmulatedAnswer } from './emulated-answer.ts';
import type { EmulatedCall, EndState } from './emulated-calls.ts';
import { overloaded } from './emulated-errors.ts';
import { sendJsonText } from './emulated-http.ts';
import { cutConnection, type Caller, type Schedule } from './emulated-pace.ts';
import type { ChatRequest } from './emulated-request.ts';
import { interruptionOf, type Interruption } from './emulated-script.ts';
import { FrameWriter, plainBody, type AnswerStamp } from './emulated-wire.ts';

/** An answer on its way to the caller. */
export interface Delivery {
  readonly request: ChatRequest;
  readonly answer: EmulatedAnswer;
  readonly schedule: Schedule;
  readonly stamp: AnswerStamp;
  /** Its counts follow what has been generated. */
  readonly call: EmulatedCall;
  readonly caller: Caller;
  readonly response: ServerResponse;
  /** Of `performance.now()`. */
  readonly startedMs: number;
  readonly wantsUsage: boolean;
  readonly usage: () => unknown;
  /** Bills the call. Comes before the last byte, so that whoever has read the answer finds it in the books. */
  readonly close: (state: EndState) => void;
}

/** Frames that are due at the same time leave together, in writes of about this size. */
const WRITE_CHARACTERS = 64 * 1024;

export async function deliverPlain(delivery: Delivery): Promise<void> {
  const { request, answer, schedule, stamp, call, caller, response, startedMs } = delivery;
  if (request.script.stall_before_headers) return stallInSilence(delivery);
  await untilDue(delivery, schedule.lastStepMs());
  if (caller.gone) {
    Object.assign(call, schedule.generatedBy(performance.now() - startedMs));
    return delivery.close('aborted');
  }
  call.reasoningTokens = answer.reasoningTokens;
  call.completionTokens = answer.completionTokens;
  const body = plainBody(stamp, request, answer, delivery.wantsUsage ? delivery.usage() : undefined);
  const interruption = interruptionOf(request.script);
  if (interruption !== undefined && interruption.kind !== 'error') return breakPlainBody(delivery, interruption, body);
  delivery.close('completed');
  sendJsonText(response, 200, body);
}

export async function deliverStream(delivery: Delivery): Promise<void> {
  const { request, answer, schedule, stamp, call, caller, response, startedMs } = delivery;
  if (request.script.stall_before_headers) return stallInSilence(delivery);
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  if (schedule.stepMs(0) > 0) response.flushHeaders();

  const writer = new FrameWriter(stamp, request);
  const interruption = interruptionOf(request.script);
  let contentFrames = 0;
  let unsent = '';
  for (const frame of writer.contentFrames(answer)) {
    if (contentFrames === interruption?.afterFrames) return interrupt(delivery, interruption, writer, unsent, frame.text);
    const dueMs = startedMs + schedule.stepMs(frame.step);
    if (dueMs > performance.now() || unsent.length >= WRITE_CHARACTERS) {
      if (unsent !== '' && !response.write(unsent)) await caller.untilDrained();
      unsent = '';
      await untilDue(delivery, schedule.stepMs(frame.step));
      if (caller.gone) {
        if (contentFrames === 0) Object.assign(call, schedule.generatedBy(performance.now() - startedMs));
        return delivery.close('aborted');
      }
    }
    unsent += frame.text;
    contentFrames += 1;
    call.framesSent += 1;
    call.completionTokens += frame.tokens;
    call.reasoningTokens = answer.reasoningTokens;
  }

  const closing = writer.finishFrames(answer.choices);
  if (interruption !== undefined) return interrupt(delivery, interruption, writer, unsent, closing[0]!);
  if (delivery.wantsUsage) closing.push(writer.usageFrame(delivery.usage()));
  if (!request.script.no_done) closing.push(writer.doneFrame());
  call.framesSent += closing.length;
  delivery.close('completed');
  response.end(unsent + closing.join(''));
}

/** Returns at once, without even a microtask, when the time has come already. */
function untilDue({ caller, startedMs }: Delivery, stepMs: number): Promise<void> | undefined {
  const dueMs = startedMs + stepMs;
  return dueMs > performance.now() ? caller.until(dueMs) : undefined;
}

/** The answer never begins; the model has been thinking all the while. */
async function stallInSilence({ schedule, call, caller, startedMs, close }: Delivery): Promise<void> {
  await caller.untilGone();
  call.reasoningTokens = schedule.generatedBy(performance.now() - startedMs).reasoningTokens;
  close('aborted');
}

async function breakPlainBody({ caller, response, close }: Delivery, { kind }: Interruption, body: string): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  const half = body.slice(0, body.length / 2);
  if (kind === 'cut') {
    close('failed');
    return cutConnection(response, half);
  }
  response.write(half);
  await caller.untilGone();
  close('aborted');
}

async function interrupt(delivery: Delivery, { kind }: Interruption, writer: FrameWriter, unsent: string, nextFrame: string): Promise<void> {
  const { request: { script }, call, caller, response } = delivery;
  if (kind === 'error') {
    call.framesSent += 1;
    delivery.close('failed');
    const { message } = overloaded(503);
    const nested = { error: { message, type: 'server_error', code: 'service_unavailable' } };
    response.end(unsent + writer.errorFrame(script.error_shape === 'nested' ? nested : overloaded(503).body('sentence')));
  } else if (kind === 'cut') {
    delivery.close('failed');
    await cutConnection(response, unsent + (script.cut_mid_frame ? nextFrame.slice(0, nextFrame.length / 2) : ''));
  } else {
    if (unsent === '') response.flushHeaders();
    else response.write(unsent);
    await caller.untilGone();
    delivery.close('aborted');
  }
}
