import { describe, expect, it } from '@jest/globals';
import { hecUrls, readAck, readHecAnswer } from './hec-wire.ts';
import { readOtlpAnswer } from './otlp-wire.ts';
import { faultText, shownText } from './shown-text.ts';
import { escapedValue, syslogFrame } from './syslog-wire.ts';
import { parseTlsOrigin } from './tls-origin.ts';
import { TlsRecords } from './tls-records.ts';

describe('hecUrls', () => {
  it.each([
    ['https://hec.example', '/services/collector/event', '/services/collector/ack'], ['https://hec.example/', '/services/collector/event', '/services/collector/ack'],
    ['https://hec.example/services/collector', '/services/collector', '/services/collector/ack'], ['https://hec.example/services/collector/event/1.0', '/services/collector/event/1.0', '/services/collector/ack'],
    ['https://proxy.example:8088/splunk/services/collector/event', '/splunk/services/collector/event', '/splunk/services/collector/ack'],
  ])('of %s', (url, events, acks) => {
    const { origin } = new URL(url);
    expect(hecUrls(url, 'channel-1')).toEqual({ events: `${origin}${events}`, acks: `${origin}${acks}?channel=channel-1` });
  });
});

describe('readHecAnswer', () => {
  it.each<[number, string, object]>([
    [200, '{"text":"Success","code":0,"ackId":0}', { kind: 'taken', ackId: 0 }],
    [200, '{"text":"Success","code":0}', { kind: 'retry', slow: true }], [200, '{"text":"Success","code":0,"ackId":"7"}', { kind: 'retry', slow: true }], [200, '<html>', { kind: 'retry' }], [200, '{"code":9}', { kind: 'retry' }],
    [400, '{"text":"x","code":12,"invalid-event-number":0}', { kind: 'poison', place: 0 }], [400, '{"code":6,"invalid-event-number":-1}', { kind: 'refused' }], [400, '{"code":6,"invalid-event-number":1.5}', { kind: 'refused' }], [400, 'x', { kind: 'refused' }], [413, '', { kind: 'refused' }],
    [400, '{"code":14}', { kind: 'retry', slow: true }], [401, '', { kind: 'retry', slow: true }], [403, '', { kind: 'retry', slow: true }], [404, '', { kind: 'retry', slow: true }], [429, '', { kind: 'retry', slow: false, afterMs: 9 }], [503, '', { kind: 'retry', slow: false, afterMs: 9 }],
  ])('%i %s', (status, text, answer) => {
    expect(readHecAnswer(status, text, 9)).toMatchObject(answer);
  });

  it.each<[number, string, boolean | undefined]>([[200, '{"acks":{"7":true}}', true], [200, '{"acks":{"7":false}}', false], [200, '{"acks":{"8":true}}', undefined], [200, '{"acks":{"7":"true"}}', undefined], [200, '', undefined], [503, '{"acks":{"7":true}}', undefined]])('readAck %i %s', (status, text, state) => {
    expect(readAck(status, text, 7)).toBe(state);
  });
});

describe('readOtlpAnswer', () => {
  it.each<[number, string, object]>([
    [200, '{}', { kind: 'acknowledged', rejected: 0 }], [200, ' ', { kind: 'acknowledged', rejected: 0 }], [200, '[]', { kind: 'retry' }], [200, '{"partialSuccess":{"rejectedLogRecords":"12"}}', { kind: 'acknowledged', rejected: 12 }], [200, '{"partialSuccess":{"rejectedLogRecords":-1}}', { kind: 'acknowledged', rejected: 0 }],
    [202, '{}', { kind: 'acknowledged', rejected: 0 }], [204, '', { kind: 'acknowledged', rejected: 0 }], [307, '', { kind: 'retry', slow: true }], [400, '', { kind: 'refused' }], [409, '', { kind: 'refused' }], [413, '', { kind: 'refused' }], [401, '', { kind: 'retry', slow: true }], [403, '', { kind: 'retry', slow: true }], [404, '', { kind: 'retry', slow: true }],
    [429, '', { kind: 'retry', slow: false, afterMs: 9 }], [502, '', { kind: 'retry', slow: false }], [503, '', { kind: 'retry', slow: false, afterMs: 9 }], [504, '', { kind: 'retry', slow: false }], [500, '', { kind: 'retry', slow: false }],
  ])('%i %s', (status, text, answer) => {
    expect(readOtlpAnswer(status, text, 9)).toMatchObject(answer);
  });
});

describe('syslogFrame', () => {
  const EVENT = { index: 7n, id: 'id', body: Buffer.from('{"ü":"🙂"}'), text: '', timeMs: 0, severityId: 4, phase: 'a b"]\\ü\n' };

  it('counts bytes, not characters, and lets nothing into the header that is not visible ASCII', () => {
    const frame = syslogFrame(EVENT, 'höst name\n', 42).toString();
    const message = frame.slice(frame.indexOf(' ') + 1);
    expect(Number(frame.split(' ', 1)[0])).toBe(Buffer.byteLength(message));
    expect(message).toBe('<107>1 1970-01-01T00:00:00.000Z hstname novix-gateway 42 ab"]\\ [novix@32473 index="7" id="id" phase="a b\\"\\]\\\\ü\n"] {"ü":"🙂"}');
    expect(syslogFrame({ ...EVENT, phase: '' }, '', 42).toString()).toContain('<107>1 1970-01-01T00:00:00.000Z - novix-gateway 42 - [');
  });

  it.each([['"', '\\"'], ['\\', '\\\\'], [']', '\\]'], ['\\"]', '\\\\\\"\\]'], ["' = | [ \n", "' = | [ \n"]])('escapes %j in values', (value, escaped) => {
    expect(escapedValue(value)).toBe(escaped);
  });
});

describe('parseTlsOrigin', () => {
  it.each<[string, string | undefined]>([
    ['tls://syslog.example', 'tls://syslog.example:6514'], ['TLS://Syslog.Example:443/', 'tls://syslog.example:443'], ['tls://127.1:1', 'tls://127.0.0.1:1'], ['tls://0x7f000001', 'tls://127.0.0.1:6514'], ['tls://[::0:1]:65535', 'tls://[::1]:65535'],
    ['tls://', undefined], ['tls:syslog.example', undefined], ['tls://a:0', undefined], ['tls://a:65536', undefined], ['tls://a:', undefined], ['tls://u@a', undefined], ['tls://a/b', undefined], ['tls://a?b', undefined], ['tls://a#b', undefined], ['tls://a b', undefined], ['tls://a\\b', undefined], ['https://a', undefined], ['tls://[::1', undefined], ['tls://a\n', undefined],
  ])('of %j is %j', (url, origin) => {
    expect(parseTlsOrigin(url)?.origin).toBe(origin);
  });
});

describe('TlsRecords', () => {
  const record = (type: number, bytes: number): Buffer => Buffer.concat([Buffer.from([type, 3, 3, bytes >> 8, bytes & 255]), Buffer.alloc(bytes, 1)]);
  const TICKET = record(23, 250);

  it.each<[string, Buffer[], boolean]>([
    ['an alert of TLS 1.3', [TICKET, record(23, 19)], true], ['an alert of TLS 1.2', [record(22, 90), record(21, 26)], true], ['tickets alone', [TICKET, TICKET], false], ['nothing', [], false],
    ['half of an alert', [TICKET, record(23, 19).subarray(0, 10)], false], ['half of a header', [record(23, 19), TICKET.subarray(0, 3)], false], ['an alert, and then more', [record(23, 19), TICKET], false],
  ])('%s', (_, parts, ended) => {
    const whole = Buffer.concat(parts);
    for (const size of [1, 3, 7, whole.length || 1]) {
      const records = new TlsRecords();
      for (let place = 0; place < whole.length; place += size) records.push(whole.subarray(place, place + size));
      expect(records.endedWithAlert).toBe(ended);
    }
  });
});

describe('faultText', () => {
  it('says something of every error', () => {
    expect([new Error('text'), Object.assign(new AggregateError([]), { code: 'ECONNREFUSED' }), new AggregateError([]), 'thrown'].map(faultText)).toEqual(['text', 'ECONNREFUSED', 'AggregateError', 'thrown']);
  });
});

describe('shownText', () => {
  it('is one line, not long, and without the token', () => {
    expect(shownText('bad\r\n\u0000token abc\u2028!', 'abc')).toBe('bad token … !');
    expect(shownText('x'.repeat(9_999), undefined)).toHaveLength(500);
  });
});
