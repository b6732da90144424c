-- What the ingress gateway runs, after it has asked for the login and judged it, on every request: to what runs in a
-- namespace of the class go no session cookie, of which SESSION is how the names begin, and no token of the login. HEADS
-- are how the names of the namespaces begin.

local function leads_there(path)
  -- Kubeflow's controllers put the namespace somewhere into the path of what a student runs, after parts that may be
  -- the student's choice (PVCViewer, basePrefix). KFP's API, which is asked with the login, has it in the query.
  for part in path:match("^[^?#]*"):gmatch("[^/]+") do
    for _, head in ipairs(HEADS) do
      -- What is no DNS label is no namespace: /v1/models/demo-net:predict is of somebody else's.
      if part:sub(1, #head) == head and not part:find("[^a-z0-9-]") then
        return true
      end
    end
  end
  return false
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if not leads_there(headers:get(":path") or "") then
    return
  end
  headers:remove("authorization")
  local kept = {}
  for at = 0, headers:getNumValues("cookie") - 1 do
    -- Cut as text: parsed and written again, other cookies might come out changed.
    for cookie in headers:getAtIndex("cookie", at):gmatch("[^;]+") do
      cookie = cookie:match("^%s*(.-)%s*$")
      if cookie ~= "" and cookie:sub(1, #SESSION) ~= SESSION then
        kept[#kept + 1] = cookie
      end
    end
  end
  headers:remove("cookie")
  if #kept > 0 then
    headers:add("cookie", table.concat(kept, "; "))
  end
end
