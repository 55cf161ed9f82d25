import type { IncomingMessage, ServerResponse } from 'node:http';
import type { CallLedger } from './emulated-calls.ts';
import { invalid, unparsable } from './emulated-errors.ts';
import { readFaults, type FaultRules } from './emulated-faults.ts';
import { readBody, sendJson } from './emulated-http.ts';
import type { EmulatorPace } from './emulated-pace.ts';
import type { Handler, Routes } from './emulated-routes.ts';
import { fields, number } from './emulated-shape.ts';
import { readSwitches, type EmulatorSwitches } from './emulated-switches.ts';

/** What may be looked into and changed from other processes. */
export interface Controlled {
  readonly ledger: CallLedger;
  readonly pace: EmulatorPace;
  readonly faults: FaultRules;
  readonly switches: EmulatorSwitches;
  reset(): void;
}

/** The paths under /__emulator, which the real service has not. */
export function controlRoutes(emulator: Controlled): Routes {
  return {
    '/__emulator/bill': { GET: (_, response) => {
      const { billedUsdTicks, ...counts } = emulator.ledger.totals();
      sendJson(response, 200, { ...counts, billed_usd_ticks: billedUsdTicks });
    } },
    '/__emulator/calls': { GET: (_, response, __, query) => sendJson(response, 200, emulator.ledger.list(Number(query.get('since') ?? 0))) },
    '/__emulator/reset': { POST: (_, response) => {
      emulator.reset();
      response.writeHead(204).end();
    } },
    '/__emulator/pace': { PUT: changing((json) => setPace(emulator.pace, json)) },
    '/__emulator/faults': {
      PUT: changing((json) => emulator.faults.set(readFaults(json))),
      DELETE: (_, response) => {
        emulator.faults.set([]);
        response.writeHead(204).end();
      },
    },
    '/__emulator/switches': { PUT: changing((json) => Object.assign(emulator.switches, readSwitches(json))) },
  };
}

/** Whatever content type the request names. */
function changing(change: (json: unknown) => void): Handler {
  return async (request: IncomingMessage, response: ServerResponse) => {
    change(parse((await readBody(request)).toString()));
    response.writeHead(204).end();
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw unparsable(String(error));
  }
}

/** Calls that have begun keep their pace. */
function setPace(pace: EmulatorPace, json: unknown): void {
  fields({ first_token_ms: number, token_interval_ms: number, reasoning_token_ms: number })(json, '');
  const asked = json as { first_token_ms: number; token_interval_ms: number; reasoning_token_ms: number };
  if (Object.values(asked).some((ms) => ms < 0)) throw invalid('A pace is zero or more milliseconds.');
  Object.assign(pace, { firstTokenMs: asked.first_token_ms, tokenIntervalMs: asked.token_interval_ms, reasoningTokenMs: asked.reasoning_token_ms });
}
