-- Count one request against all of its limits, in one step and one round trip.
--
-- KEYS     one per limit: "start current previous blocked_until", all in milliseconds since 1970
-- ARGV[1]  numbers between spaces, one argument being cheaper than many: the time in milliseconds (0 takes this
--          server's), 1 to count or 0 to look, then for each limit points, window, block (milliseconds), cost
--
-- Returns "refused now start current previous blocked_until start ...": `refused` is the number of the first limit
-- that is exceeded, 0 when none is. A refused request is counted nowhere. engine.py does the same without Redis.

local numbers = {}
for number in string.gmatch(ARGV[1], '%d+') do
  numbers[#numbers + 1] = tonumber(number)
end

local now, counting = numbers[1], numbers[2] == 1
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local refused = 0
local rows = {}

for i = 1, #KEYS do
  local points, window, block, cost = unpack(numbers, 4 * i - 1, 4 * i + 2)
  local row = { start = now - now % window, current = 0, previous = 0, blocked = 0, window = window, cost = cost }

  local stored = redis.call('GET', KEYS[i])
  if stored then
    local start, current, previous, blocked = string.match(stored, '^(%d+) (%d+) (%d+) (%d+)$')
    start = tonumber(start)
    if start and start >= row.start and start <= row.start + window then
      row.start, row.current, row.previous = start, tonumber(current), tonumber(previous)
    elseif start == row.start - window then
      row.previous = tonumber(current)
    end
    if start and tonumber(blocked) > now then
      row.blocked = tonumber(blocked)
    end
  end

  local elapsed = math.max(0, now - row.start)
  local used = row.previous * (window - elapsed) + (row.current + cost) * window
  if row.blocked > 0 or used > points * window then
    if refused == 0 then refused = i end
    if counting and row.blocked == 0 and block > 0 then
      row.blocked, row.changed = now + block, true
    end
  end
  rows[i] = row
end

local reply = { string.format('%d %d', refused, now) }
for i, row in ipairs(rows) do
  if counting and refused == 0 then
    row.current, row.changed = row.current + row.cost, true
  end
  local value = string.format('%d %d %d %d', row.start, row.current, row.previous, row.blocked)
  if row.changed then
    local expires = math.max(row.start + 2 * row.window, row.blocked)
    redis.call('SET', KEYS[i], value, 'PX', string.format('%d', expires - now))
  end
  reply[i + 1] = value
end
return table.concat(reply, ' ')
