import { createSecretKey, randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { newEpochKeys, unwrapDataKey, wrapDataKey, type DataKeyName } from '../src/vault/key-wrap.ts';
import { openRecord, RecordSealer, uuidBytes, type RecordName } from '../src/vault/record-cipher.ts';

// `npm run bench:payload-sealing -- [--bytes 4096] [--rounds 7] [--round-ms 500] [--json]`: how many texts a second one core seals and opens, and what a data
// key costs, of which there is one a tenant, day and process. One thread does all of it, and nothing is stored.

const GOAL_SEALS_PER_SECOND = 20_000;
const BATCH = 64;

const { values } = parseArgs({
  options: { bytes: { type: 'string', default: '4096' }, rounds: { type: 'string', default: '7' }, 'round-ms': { type: 'string', default: '500' }, json: { type: 'boolean', default: false } },
});
const [textBytes, rounds, roundMs] = [Number(values.bytes), Number(values.rounds), Number(values['round-ms'])];

const text = randomBytes(textBytes);
const key = createSecretKey(randomBytes(32));
const keyId = '01890000-0000-7000-8000-0000000000aa';
const idBytes = uuidBytes(keyId);
const record: RecordName = { tenantId: 'acme', requestId: '01890000-0000-7000-8000-000000000001', purpose: 'prompt' };
const dataKeyName: DataKeyName = { id: keyId, tenantId: 'acme', day: '2026-11-24', epochId: '01890000-0000-7000-8000-0000000000ee' };
const epoch = newEpochKeys();
const dataKey = randomBytes(32);

function seal(): Buffer {
  const sealer = new RecordSealer(key, idBytes, record);
  sealer.update(text);
  return sealer.finish();
}

const sealed = seal();
const wrapped = wrapDataKey(epoch.publicKeys, dataKeyName, dataKey);

/** Operations a second in each round, after one round that does not count. */
function measure(operation: () => unknown): { median: number; low: number; high: number } {
  const rates: number[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const startedMs = performance.now();
    let done = 0;
    do {
      for (let one = 0; one < BATCH; one += 1) operation();
      done += BATCH;
    } while (performance.now() - startedMs < roundMs);
    if (round > 0) rates.push((done * 1000) / (performance.now() - startedMs));
  }
  const sorted = rates.toSorted((left, right) => left - right);
  return { median: sorted[sorted.length >> 1]!, low: sorted[0]!, high: sorted.at(-1)! };
}

const result = {
  bytes: textBytes, rounds,
  seals_per_second: measure(seal),
  opens_per_second: measure(() => openRecord(key, idBytes, record, sealed)),
  data_keys_wrapped_per_second: measure(() => wrapDataKey(epoch.publicKeys, dataKeyName, dataKey)),
  data_keys_unwrapped_per_second: measure(() => unwrapDataKey(epoch.privateKeys, dataKeyName, wrapped)),
};
if (values.json) process.stdout.write(`${JSON.stringify(result)}\n`);
else {
  process.stdout.write(`${textBytes} bytes a text, one core; operations a second, median (lowest–highest) of ${rounds} rounds\n`);
  for (const [name, rate] of Object.entries(result)) {
    if (typeof rate !== 'number') process.stdout.write(`${name.padEnd(32)} ${Math.round(rate.median)} (${Math.round(rate.low)}–${Math.round(rate.high)})\n`);
  }
  if (textBytes === 4096) process.stdout.write(`goal: ${GOAL_SEALS_PER_SECOND} seals a second: ${result.seals_per_second.median >= GOAL_SEALS_PER_SECOND ? 'met' : 'missed'}\n`);
}
