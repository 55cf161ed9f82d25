import type { ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import { sendWhole, type AnswerBody } from './emulated-body.ts';
import { cdnPage, isCdnStatus, overloaded, refusalOfStatus, type ErrorDialect } from './emulated-errors.ts';
import type { Caller } from './emulated-pace.ts';
import type { EmulatorScript } from './emulated-script.ts';

export interface RefusalWay {
  readonly caller: Caller;
  readonly startedMs: number;
  readonly response: ServerResponse;
  readonly body: AnswerBody;
  readonly dialect: ErrorDialect;
}

/** What a script does to a look-up, which is never billed: true when nothing is left to answer. */
export async function playDisturbance(script: EmulatorScript, way: RefusalWay): Promise<boolean> {
  const { caller, startedMs } = way;
  if (script.delay_ms !== undefined) await caller.until(startedMs + script.delay_ms);
  if (script.stall_before_headers) await caller.untilGone();
  return caller.gone || playRefusal(script, way);
}

/** Plays a refusal that the script asks for; false when it asks for none. */
export async function playRefusal(script: EmulatorScript, { caller, startedMs, response, body, dialect }: RefusalWay): Promise<boolean> {
  const status = script.status ?? (script.ok_with_error ? 200 : script.html ? 520 : undefined);
  if (status === undefined && !script.reset_before_headers) return false;
  if (script.first_token_ms !== undefined) await caller.until(startedMs + script.first_token_ms);
  if (status === undefined) {
    resetConnection(response);
    return true;
  }
  if (script.retry_after !== undefined) response.setHeader('retry-after', script.retry_after);
  if (script.body !== undefined) await sendWhole(body, status, 'application/json', JSON.stringify(script.body));
  else if (script.html || isCdnStatus(status)) await sendWhole(body, status, 'text/html; charset=UTF-8', cdnPage(status));
  else await sendWhole(body, status, 'application/json', JSON.stringify((script.ok_with_error ? overloaded(status) : refusalOfStatus(status)).body(dialect)));
  return true;
}

function resetConnection(response: ServerResponse): void {
  const { socket } = response.req;
  if (socket instanceof TLSSocket) socket.destroy(); // has no reset of its own
  else socket.resetAndDestroy();
}
